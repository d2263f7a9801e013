# Every task is one line; what it needs is made first, from the locks in requirements/, below .venv.
PYTHON ?= python3
BIN := .venv/bin
# not those that start processes, since they wait for drains, nor those that try thousands of cases
SLOW := $(addprefix --ignore tests/,$(addprefix edgekeeper/,test_process.py test_supervisor.py test_restart.py test_overload.py \
  test_mistreatment.py test_controls.py test_records.py test_questions.py test_otlp.py reload) $(addprefix authz/,abuse keys replay tokens test_examples.py test_explain.py \
  test_ip_sets.py test_mtls.py test_recorded.py test_speed.py test_trials.py test_wire_exact.py) $(addprefix ratelimit/,redis reference \
  store_contract test_bounds.py test_examples.py test_speed.py test_traces.py))
UNIT := tests/test_house.py tests/test_canary.py tests/edgekeeper tests/authz tests/ratelimit tests/accesslog tests/protos $(SLOW)
LINT := . protos/generate

.PHONY: demo run test check bench soak format protos docs lock clean .venv/judge .venv/newest
.DELETE_ON_ERROR:

demo: .venv/demo  ## a real Envoy, the three services, and a table of what became of some requests
	@$(BIN)/edgekeeper demo

run: .venv/demo  ## the same edge until Ctrl-C, with curl lines to try
	@$(BIN)/edgekeeper demo --stay

test: .venv/test .venv/judge .venv/newest  ## every test; those of the faults by themselves, since they measure
	@$(BIN)/pytest -n 2 --dist loadfile --ignore tests/faults && $(BIN)/pytest tests/faults

check: .venv/test .venv/judge  ## format, lint, types, house rules, unit tests
	@$(BIN)/ruff format --check $(LINT) && $(BIN)/ruff check $(LINT) && $(BIN)/mypy && $(BIN)/python protos/generate --check && $(BIN)/pytest -q -n 2 $(UNIT)

bench: .venv/test  ## what one request, its metrics, its counters and one line of a record cost
	@$(BIN)/python bench/hot_path.py && $(BIN)/python bench/decide.py && $(BIN)/python bench/limits.py && $(BIN)/python bench/stores.py && $(BIN)/python bench/records.py && $(BIN)/python bench/telemetry.py

soak: .venv/test  ## every fault and every soak at full size; the result is kept under bench/results/
	@$(BIN)/python bench/soak.py

format: .venv/test  ## as `make check` wants it
	@$(BIN)/ruff format $(LINT) && $(BIN)/ruff check --fix $(LINT)

protos: .venv/test  ## the generated modules anew
	@$(BIN)/python protos/generate

docs: .venv/test  ## the reference page anew
	@$(BIN)/edgekeeper schema --format markdown > docs/reference.md

lock: .venv/test  ## the locks anew; UPGRADE=--upgrade for newer versions
	@PATH=$(BIN):$$PATH requirements/lock $(UPGRADE)

clean:  ## all that is not in the repository
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .demo

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Edgekeeper needs Python 3.11 or newer; try: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .venv

# the stamps are files that are made last: what was interrupted is made again
.venv/demo .venv/test: .venv/%: requirements/%.txt pyproject.toml | .venv/bin/pip
	@echo "installing requirements/$*.txt into .venv ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/judge .venv/newest: .venv/%: .venv/%/installed

.venv/judge/installed .venv/newest/installed: .venv/%/installed: requirements/%.txt | .venv/bin/pip
	@echo "installing requirements/$*.txt into .venv/$* ..."
	@$(PYTHON) -m venv .venv/$* && .venv/$*/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
