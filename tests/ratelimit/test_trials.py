"""The tests beside the limits: each case comes true, or says at its place what came instead."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgekeeper.config import validated
from edgekeeper.errors import ConfigError
from edgekeeper.sources import DiskSources
from edgekeeper.yaml import parse
from ratelimit.__main__ import SERVICE, build
from ratelimit.cli import commands
from ratelimit.config import RatelimitSection
from ratelimit.trials import Trial, trials

LIMITS = """domain: shop
descriptors:
  - key: tenant
    rate_limit: {unit: minute, requests_per_unit: 2}
"""
GOOD = """domain: shop
cases:
  - name: two a minute
    trace:
      - {at: 0s, descriptors: [{tenant: a}], want: [ok], remaining: [1], reset: [60s]}
      - {at: 30s, descriptors: [{tenant: a}, {nobody: x}], want: [ok, none], remaining: [0, 0], reset: [30s, 0s]}
      - {at: 30s, descriptors: [{tenant: a}], want: [over_limit]}
      - {at: 30s, descriptors: [{tenant: a}], hits: -1, want: [ok], remaining: [1]}
      - {at: 30s, descriptors: [{tenant: a}], hits: 0, want: [ok], remaining: [1]}
      - {at: 60s, descriptors: [{tenant: a}], hits: 2, want: [ok], remaining: [0]}
  - name: a case begins anew
    trace: [{at: 0s, descriptors: [{tenant: a}], hits: 2, want: [ok]}]
"""


def section(path: Path, *places: str) -> RatelimitSection:
    text = f"{{listen: 'unix:r.sock', limits: [{', '.join(places or ('.',))}]}}"
    return validated(RatelimitSection, parse(text.encode(), "s.yaml")[0], base=path)


def tried(path: Path, tests: str, *places: str) -> list[Trial]:
    (path / "shop.yaml").write_text(LIMITS)
    (path / "shop_test.yaml").write_text(tests)
    sources, chosen = DiskSources(), section(path, *places)
    return list(trials(chosen, build(chosen, sources), sources))


def told(path: Path, tests: str) -> list[str]:
    problems = [str(problem) for trial in tried(path, tests) for problem in trial.problems]
    return [problem.removeprefix(f"{path}/shop_test.yaml:") for problem in problems]


def test_cases_that_come_true_have_no_problems(tmp_path: Path):
    file = str(tmp_path / "shop_test.yaml")
    assert [Trial(file, "two a minute"), Trial(file, "a case begins anew")] == tried(tmp_path, GOOD)


def test_the_tests_of_a_file_that_the_section_names_stand_beside_it(tmp_path: Path):
    assert 2 == len(tried(tmp_path, GOOD, "shop.yaml"))
    assert 2 == len(tried(tmp_path, GOOD, "shop.yaml", "."))


def test_limits_need_no_tests(tmp_path: Path):
    (tmp_path / "shop.yaml").write_text(LIMITS)
    chosen = section(tmp_path, "shop.yaml")
    assert SERVICE.generation(chosen, DiskSources()).generation


WRONG = [
    ("want: [over_limit]}", "want: [ok]}", ["7:54: `two a minute`: `want`: expected ok, got over_limit"]),
    ("remaining: [1], reset", "remaining: [7], reset", ["5:70: `two a minute`: `remaining`: expected 7, got 1"]),
    ("reset: [60s]", "reset: [1s]", ["5:82: `two a minute`: `reset`: expected 1s, got 60s"]),
    ("reset: [30s, 0s]", "reset: [30s, 1500ms]", ["6:110: `two a minute`: `reset`: expected 1500000us, got 0s"]),
    ("want: [ok, none]", "want: [none, ok]", ["6:67: `two a minute`: `want`: expected none, got ok", "6:73: `two a minute`: `want`: expected ok, got none"]),
    ("at: 60s", "at: 59s", ["10:63: `two a minute`: `want`: expected ok, got over_limit", "10:80: `two a minute`: `remaining`: expected 0, got 1"]),
    ("at: 60s", "at: 29s", ["10:14: `at`: earlier than the request before"]),
    ("domain: shop", "domain: shopp", ["1:9: `domain`: no file of limits configures `shopp`"]),
    ("want: [ok, none]", "want: [ok]", ["6:66: `want`: one for each of 2 descriptors is needed, got 1"]),
    ("remaining: [0, 0]", "remaining: []", ["6:89: `remaining`: one for each of 2 descriptors is needed, got 0"]),
    ("hits: -1", "hit: -1", ["8:47: unknown field `hit`; did you mean `hits`?"]),
    ("want: [over_limit]", "want: [overlimit]", ["7:54: `cases[0].trace[2].want[0]`: expected one of `ok`, `over_limit` or `none`"]),
    ("{tenant: a}, {nobody", "{tenant: 7}, {nobody", ["6:42: `cases[0].trace[1].descriptors[0].tenant`: expected text, got a number; quote it"]),
    (GOOD, "", ["1:1: one YAML document is needed, got 0; a file tests one domain"]),
    (GOOD, "[", ["2:1: not YAML: did not find expected node content"]),
]  # fmt: skip


@pytest.mark.parametrize(("good", "wrong", "want"), WRONG)
def test_what_is_wrong_is_told_at_its_place(tmp_path: Path, good: str, wrong: str, want: list[str]):
    assert want == told(tmp_path, GOOD.replace(good, wrong, 1))


def test_a_generation_whose_tests_fail_is_none_and_tests_are_no_part_of_its_name(tmp_path: Path):
    tried(tmp_path, GOOD)
    chosen = section(tmp_path)
    before = SERVICE.generation(chosen, DiskSources()).generation
    (tmp_path / "shop_test.yaml").unlink()
    assert before == SERVICE.generation(chosen, DiskSources()).generation
    (tmp_path / "shop_test.yaml").write_text(GOOD.replace("over_limit", "ok"))
    with pytest.raises(ConfigError, match="expected ok, got over_limit"):
        SERVICE.generation(chosen, DiskSources())


def ran(path: Path, *arguments: str) -> Any:
    (path / "edgekeeper.yaml").write_text("ratelimit: {listen: 'unix:r.sock', limits: [shop.yaml]}\n")
    (path / "shop.yaml").write_text(LIMITS)
    return CliRunner().invoke(commands, [*arguments, "--config", str(path / "edgekeeper.yaml")])


def test_the_command_prints_each_case(tmp_path: Path):
    (tmp_path / "shop_test.yaml").write_text(GOOD)
    result = ran(tmp_path, "test")
    assert (0, f"ok  {tmp_path}/shop_test.yaml: two a minute") == (
        result.exit_code,
        result.stdout.splitlines()[0],
    )
    assert "2 cases, 0 failed" == result.stdout.splitlines()[-1]


def test_the_command_fails_with_a_case_and_says_where(tmp_path: Path):
    (tmp_path / "shop_test.yaml").write_text(GOOD.replace("over_limit", "ok"))
    result = ran(tmp_path, "test")
    assert 1 == result.exit_code
    assert f"FAILED  {tmp_path}/shop_test.yaml: two a minute" == result.stdout.splitlines()[0]
    assert f"{tmp_path}/shop_test.yaml:7:54: `two a minute`" in result.stderr
    assert "2 cases, 1 failed" == result.stdout.splitlines()[-1]
    told = ran(tmp_path, "test", "--format", "json")
    assert (1, True) == (told.exit_code, '"message": "`two a minute`: `want`: expected ok' in told.stdout)


def test_the_check_runs_them_too(tmp_path: Path):
    (tmp_path / "shop_test.yaml").write_text(GOOD.replace("over_limit", "ok"))
    result = ran(tmp_path, "check")
    assert (1, True) == (result.exit_code, "expected ok, got over_limit" in result.stderr)
