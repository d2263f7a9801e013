"""`edgekeeper ratelimit counters`: what it asks for, what it prints, and how it ends."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click.testing
import pytest

from edgekeeper.config import Address
from edgekeeper.errors import DependencyError
from ratelimit.__main__ import SERVICE
from ratelimit.cli import counters

LIMIT = {"name": "", "requests_per_unit": 10, "unit": "minute", "window_us": 60_000_000}
HELD = {
    **LIMIT,
    "algorithm": "fixed_window",
    "burst": 0,
    "used": 9,
    "remaining": 1,
    "reset_us": 11_500_001,
    "over": False,
}
FOUND = {"domain": "edge", "domain_known": True, "rule": "tenant", "counter": "4:edge..."}
NOBODY = {"domain": "edge", "domain_known": True, "rule": None}
GET = ("get", "--domain", "edge", "--descriptor", "tenant=acme")
RESET = ("reset", *GET[1:])


class Running:
    """What runs, as the commands see it: `said` is its answer, or what it raises; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.said: Any = {}
        self.asked: tuple[Address, str, str, Mapping[str, Any]] | None = None

    def __call__(self, at: Address, service: str, name: str, body: Mapping[str, Any]) -> Any:
        self.asked = at, service, name, body
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    running = Running()
    monkeypatch.setattr(counters, "control", running)
    return running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., click.testing.Result]:
    monkeypatch.setattr("edgekeeper.settings.services", lambda: {"ratelimit": SERVICE})
    section = "ratelimit: {listen: 'unix:rl.sock', limits: [limits.yaml]}"
    (tmp_path / "edgekeeper.yaml").write_text(f"admin: {{control: 'unix:/tmp/c.sock'}}\n{section}")
    (tmp_path / "without.yaml").write_text(section)

    def invoke(*arguments: str, config: str = "edgekeeper.yaml") -> click.testing.Result:
        words = ["counters", *arguments, "--config", str(tmp_path / config)]
        return click.testing.CliRunner().invoke(SERVICE.commands, words)

    return invoke


def heavy(id_: str, hits: int, *entries: str, **more: Any) -> dict[str, Any]:
    about = {"domain": "edge", "rule": "tenant", "entries": entries}
    return {"id": id_, **about, "hits": hits, "seen": hits, "refused": 0, "missing": 0, **more}


def report(*keys: dict[str, Any], left_out: int = 0) -> dict[str, Any]:
    total = sum(key["hits"] for key in keys)
    return {"total": total, "missing": 0, "left_out": left_out, "keys": keys}


def test_get_asks_for_one_descriptor_and_says_what_its_counters_hold(run, running):
    running.said = FOUND | {"limits": [HELD, HELD | {"name": "n", "over": True, "remaining": 0}]}
    result = run("get", "--domain", "edge", "--descriptor", r"tenant=a\,b,path=/x=y")
    assert (0, "") == (result.exit_code, result.stderr)
    assert [
        "edge tenant, counted as 4:edge...",
        "  10 per minute: 9 used, 1 remaining, as new in 12s",
        "  10 per minute, named `n`: 9 used, 0 remaining, over, as new in 12s",
    ] == result.stdout.splitlines()
    body = {"domain": "edge", "entries": (("tenant", "a,b"), ("path", "/x=y"))}
    assert (Address(path="/tmp/c.sock"), "ratelimit", "counters", body) == running.asked


def test_reset_is_done_by_all(run, running):
    running.said = {"workers": [FOUND | {"reset": True}, FOUND | {"reset": True}]}
    result = run(*RESET)
    assert (0, "reset: edge tenant\n") == (result.exit_code, result.stdout)
    assert "reset" == running.asked[2]


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            NOBODY,
            "no rule is for this descriptor: nothing is counted; `edgekeeper ratelimit explain` says why",
        ),
        (NOBODY | {"rule": "free"}, "edge free is unlimited: nothing is counted"),
        (NOBODY | {"domain_known": False}, "no file configures the domain edge: nothing is counted"),
    ],
)
def test_where_nothing_counts_the_status_is_1(run, running, found, line):
    running.said = found
    assert (1, f"{line}\n") == ((result := run(*GET)).exit_code, result.stdout)
    running.said = {"workers": [found | {"reset": False}]}
    assert (1, f"{line}\n") == ((result := run(*RESET)).exit_code, result.stdout)


def test_a_rule_that_only_one_worker_knows_yet_is_reset(run, running):
    running.said = {"workers": [NOBODY | {"reset": False}, FOUND | {"reset": True}]}
    assert (0, "reset: edge tenant\n") == ((result := run(*RESET)).exit_code, result.stdout)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (None, "worker 1: does not answer"),
        ({"why": "the store cannot tell"}, "worker 1: the store cannot tell"),
    ],
)
def test_what_a_worker_has_not_done_is_not_done(run, running, second, why):
    running.said = {"workers": [FOUND | {"reset": True}, second]}
    assert (2, "", f"edgekeeper: {why}\n") == (
        (result := run(*RESET)).exit_code, result.stdout, result.stderr
    )  # fmt: skip


def test_top_is_of_all_workers_together(run, running):
    one = report(heavy("1", 9, "tenant=acme", refused=3), heavy("2", 3, "tenant=globex"))
    other = report(heavy("2", 8, "tenant=globex"), heavy("3", 1, "tenant=x", "path=y"), left_out=1)
    running.said = {"workers": [one, other]}
    result = run("top", "-n", "2")
    assert [
        "HITS  OR UP TO  REFUSED  DOMAIN  RULE    ENTRIES",
        "  11        11       0%  edge    tenant  tenant=globex",
        "   9        10      33%  edge    tenant  tenant=acme",
        "of 21 hits; no other key had more than 1",
    ] == result.stdout.splitlines()
    assert (0, {"domain": None}) == (result.exit_code, running.asked[3])
    run("top", "--domain", "edge")
    assert {"domain": "edge"} == running.asked[3]


def test_top_of_nothing(run, running):
    running.said = {"workers": [report()]}
    assert (0, "no key to show, of 0 hits\n") == ((result := run("top")).exit_code, result.stdout)


def test_programs_get_json(run, running):
    running.said = FOUND | {"limits": [HELD]}
    assert running.said == json.loads(run(*GET, "--format", "json").stdout)
    running.said = {"workers": [FOUND | {"reset": True}]}
    assert FOUND | {"reset": True} == json.loads(run(*RESET, "--format", "json").stdout)
    running.said = {"workers": [report(heavy("1", 9, "a=b"), heavy("2", 3, "a=c"))]}
    said = json.loads(run("top", "-n", "1", "--format", "json").stdout)
    assert (12, ["1"]) == (said["total"], [key["id"] for key in said["keys"]])


def test_what_callers_have_sent_moves_no_cursor(run, running):
    running.said = {"workers": [report(heavy("1", 1, "tenant=\x1b[2J"))]}
    assert "\x1b" not in run("top").stdout


def test_without_a_control_socket_it_says_which_line_to_add(run, running):
    result = run(*GET, config="without.yaml")
    assert (2, "    control: unix:/run/edgekeeper/control.sock") == (
        result.exit_code,
        result.stderr.splitlines()[-1],
    )
    assert running.asked is None


def test_an_address_needs_no_configuration(run, running):
    running.said = FOUND | {"limits": [HELD]}
    assert 0 == run(*GET, "--control", "unix:/tmp/other.sock", config="nowhere.yaml").exit_code
    assert Address(path="/tmp/other.sock") == running.asked[0]
    assert 2 == run(*GET, "--control", "x").exit_code


@pytest.mark.parametrize("words", [("get", "--domain", "d"), (*GET[:-1], "tenant"), ("top", "-n", "0")])
def test_bad_usage_is_2(run, running, words):
    assert (2, None) == (run(*words).exit_code, running.asked)


def test_what_cannot_be_asked_is_2(run, running):
    running.said = DependencyError("nothing answers at unix:/tmp/c.sock: refused; does it run?")
    assert 2 == run("top").exit_code
