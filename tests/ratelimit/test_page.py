"""docs/ratelimit*.md name what the code has, and nothing that it has not; what they draw comes true."""

import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from edgekeeper.config import Model
from edgekeeper.service import Section
from edgekeeper.settings import load
from edgekeeper.telemetry import Registry
from ratelimit import config
from ratelimit import models as file_models
from ratelimit.__main__ import SERVICE
from ratelimit.algorithms import State, counted
from ratelimit.limit import Algorithm, Limit
from ratelimit.metrics import Metrics
from ratelimit.reference_metrics import watch_as_reference
from ratelimit.store.memory import MemoryStore
from ratelimit.store.over_limit import OverLimitStore
from ratelimit.store.redis.shipment import Stats
from ratelimit.store_metrics import watch_memory, watch_over_limit_cache, watch_redis

TESTS = Path(__file__).parents[1]
PAGES = sorted((TESTS.parent / "docs").glob("ratelimit*.md"))
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
NAMED = set(re.findall(r"`([^`\n]+)`", TEXT))


def models() -> list[type[Model]]:
    found = [getattr(module, name) for module in (config, file_models) for name in module.__all__]
    return [each for each in found if isinstance(each, type) and issubclass(each, Model)]


def test_every_metric_stands_in_the_page_and_no_other(clock) -> None:
    registry = Registry()
    watch_as_reference(registry, Metrics(registry))
    watch_memory(registry, MemoryStore(1 << 20, clock))
    watch_over_limit_cache(registry, OverLimitStore(MemoryStore(1 << 20, clock), 1 << 20, clock))
    watch_redis(registry, "default", SimpleNamespace(stats=Stats(), lanes=()))
    prefixes = ("edgekeeper_ratelimit_", "ratelimit_service_")
    registered = {family.name for family in registry.snapshot() if family.name.startswith(prefixes)}
    assert registered == {name for name in NAMED if name.startswith(prefixes)}


@pytest.mark.parametrize("model", models())
def test_every_key_of_a_model_stands_in_the_page(model) -> None:
    inherited = set(Section.model_fields) if issubclass(model, Section) else set()
    assert set() == {field.alias or name for name, field in model.model_fields.items()} - inherited - NAMED


@cache
def names_in(file: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^\s*(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("heading", ["Promises", "What is promised"])
def test_each_promise_names_tests_that_exist(heading):
    (section,) = re.findall(rf"^##+ {heading}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 8
    assert [] == [row for row in rows if "::test_" not in row]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", section)
    assert [] == [f"{file}::{test}" for file, test in named if test not in names_in(TESTS / file)]


SECOND = 1_000_000
(TIMELINES,) = re.findall(r"```timeline\nasked +(\S+)\n\n(.*?)```", TEXT, re.DOTALL)
DRAWN = re.findall(r"(\w+)(?:, burst (\d+))?\npassed +(\S+)\nleft +(\S+)", TIMELINES[1])


def test_a_timeline_is_drawn_for_each_algorithm():
    assert {algorithm.value for algorithm in Algorithm} == {algorithm for algorithm, *_ in DRAWN}


@pytest.mark.parametrize(("algorithm", "burst", "passed", "left"), DRAWN)
def test_a_drawn_timeline_comes_true(algorithm, burst, passed, left):
    limit = Limit(4, None, 10 * SECOND, algorithm=Algorithm(algorithm), burst=int(burst or 0))
    state: State = None
    found_passed = found_left = ""
    for second, asked in enumerate(TIMELINES[0]):
        through = 0
        for _ in range(int(asked) if asked != "." else 0):
            said, state = counted(state, second * SECOND, 1, limit)
            through += not said.over
        found_passed += "." if asked == "." else str(through)
        found_left += str(counted(state, second * SECOND, 0, limit)[0].remaining)
    assert (passed, left) == (found_passed, found_left)


BLOCKS = re.findall(r"^ *```yaml\n(.*?)^ *```$", TEXT, re.DOTALL | re.MULTILINE)
FILES = {
    match[1]: block for block in BLOCKS if (match := re.match(r"# (limits/\S+|edgekeeper\.yaml)\n", block))
}


def test_the_limits_of_the_page_pass_the_tests_of_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekeeper.settings.services", lambda: {"ratelimit": SERVICE})
    (tmp_path / "limits").mkdir()
    for name in ("edgekeeper.yaml", "limits/edge.yaml", "limits/edge_test.yaml"):
        (tmp_path / name).write_text(FILES[name])
    arguments = ["test", "--config", str(tmp_path / "edgekeeper.yaml")]
    result = CliRunner().invoke(SERVICE.commands, arguments)
    assert (0, "1 case, 0 failed") == (result.exit_code, result.output.splitlines()[-1])


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if re.search("^ *ratelimit:$", block, re.MULTILINE)]
)
def test_the_settings_of_the_pages_are_good(block, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekeeper.settings.services", lambda: {"ratelimit": SERVICE})
    for name in re.findall(r"\$\{(\w+)\}", block):
        monkeypatch.setenv(name, "sixteen characters")
    (tmp_path / "edgekeeper.yaml").write_text(block)
    assert load(str(tmp_path / "edgekeeper.yaml")).section("ratelimit").limits


ENVIRONMENT = """
HOST PORT DEBUG_{HOST,PORT} GRPC_{HOST,PORT,UDS,MAX_CONNECTION_AGE,MAX_CONNECTION_AGE_GRACE,SERVER_USE_TLS,SERVER_TLS_CERT}
GRPC_{SERVER_TLS_KEY,CLIENT_TLS_CACERT,CLIENT_TLS_SAN} LOG_{LEVEL,FORMAT} CONFIG_TYPE FORCE_START_WITHOUT_INITIAL_CONFIG
RUNTIME_{ROOT,SUBDIRECTORY,APPDIRECTORY,IGNOREDOTFILES,WATCH_ROOT} MERGE_DOMAIN_CONFIG
HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED CONFIG_GRPC_XDS_{NODE_ID,NODE_METADATA,SERVER_URL,SERVER_CONNECT_RETRY_INTERVAL}
CONFIG_GRPC_XDS_{CLIENT_ADDITIONAL_HEADERS,SERVER_USE_TLS,CLIENT_TLS_CERT,CLIENT_TLS_KEY,SERVER_TLS_CACERT,SERVER_TLS_SAN}
XDS_CLIENT_{BACKOFF_INITIAL_INTERVAL,BACKOFF_MAX_INTERVAL,BACKOFF_RANDOM_FACTOR,BACKOFF_JITTER,MAX_MSG_SIZE_IN_BYTES}
USE_STATSD STATSD_{HOST,PORT} USE_DOG_STATSD USE_DOG_STATSD_MOGRIFIERS EXTRA_TAGS STATS_FLUSH_INTERVAL DISABLE_STATS
USE_PROMETHEUS PROMETHEUS_{ADDR,PATH,MAPPER_YAML,RESPONSE_TIME_AS_MILLISECONDS} BACKEND_TYPE CACHE_KEY_PREFIX
EXPIRATION_JITTER_MAX_SECONDS LOCAL_CACHE_SIZE_IN_BYTES NEAR_LIMIT_RATIO STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT SHADOW_MODE
QUOTA_MODE RESPONSE_DYNAMIC_METADATA LIMIT_{RESPONSE_HEADERS_ENABLED,LIMIT_HEADER,REMAINING_HEADER,RESET_HEADER}
REDIS_{SOCKET_TYPE,TYPE,URL,POOL_SIZE,AUTH,SENTINEL_AUTH,TLS,TLS_CLIENT_CERT,TLS_CLIENT_KEY,TLS_CACERT,PIPELINE_WINDOW}
REDIS_{TLS_SKIP_HOSTNAME_VERIFICATION,PIPELINE_LIMIT,CLUSTER_PIPELINE_PARALLELISM,HEALTH_CHECK_ACTIVE_CONNECTION,TIMEOUT}
REDIS_{POOL_ON_EMPTY_BEHAVIOR,STARTUP_INITIAL_INTERVAL,STARTUP_MAX_INTERVAL,STARTUP_MAX_ELAPSED_TIME,PERSECOND}
REDIS_PERSECOND_{TYPE,URL,AUTH,TLS,POOL_SIZE,TIMEOUT} MEMCACHE_{HOST_PORT,SRV,SRV_REFRESH,MAX_IDLE_CONNS,TLS}
TRACING_{ENABLED,SERVICE_NAME,SERVICE_NAMESPACE,SERVICE_INSTANCE_ID,EXPORTER_PROTOCOL,SAMPLING_RATE}
"""
"""The variables of envoyproxy/ratelimit: what its settings.go reads."""


def variables() -> list[str]:
    found = []
    for word in ENVIRONMENT.split():
        head, _, tail = word.partition("{")
        found += [head + each for each in tail.rstrip("}").split(",")]
    return found


@pytest.mark.parametrize("variable", variables())
def test_every_variable_of_the_reference_stands_in_the_map(variable):
    patterns = [name for name in NAMED if re.fullmatch(r"[A-Z_]+\*?", name)]
    assert any(fnmatchcase(variable, pattern) for pattern in patterns)
