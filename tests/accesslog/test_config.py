"""The section: what is accepted, and the sentence for each mistake."""

from typing import Any

import pytest

from accesslog.config import DEFAULT_NAMESPACES, AccesslogSection, Rotate
from edgekeeper.config import validated
from edgekeeper.errors import ConfigError
from edgekeeper.testing import MARK, Spoilt, lacking, missing, spoilt
from edgekeeper.yaml import parse

BASE = "listen: 127.0.0.1:0\n"
MAIN = "sinks: [{name: main, stdout: {}}]\n"


def load(text: str) -> AccesslogSection:
    return validated(AccesslogSection, parse(text.encode(), "e.yaml")[0])


def test_the_defaults_serve_a_newcomer() -> None:
    section = load(BASE + MAIN)
    assert DEFAULT_NAMESPACES == section.metadata_namespaces
    (sink,) = load(BASE + "sinks: [{name: main, file: {path: x}}]").sinks
    assert sink.file is not None
    assert (Rotate(), 256 << 20, 7) == (sink.file.rotate, Rotate().max_bytes, Rotate().keep)
    assert ((), (), "full") == (section.redact.headers, section.redact.query, section.redact.client_address)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "e.yaml:1:1: missing field `sinks`"),
        ("sinks: []", "e.yaml:2:8: `sinks`: needs at least 1 entry"),
        ("sinks: [{name: a}]", "e.yaml:2:9: `sinks[0]`: exactly one of `file`, `stdout` is needed, got none"),
        (
            "sinks: [{name: a, stdout: {}, file: {path: x}}]",
            "e.yaml:2:9: `sinks[0]`: exactly one of `file`, `stdout` is needed, got `file` and `stdout`",
        ),
        (
            "sinks: [{name: a, stdout: {}}, {name: a, file: {path: x}}]",
            "e.yaml:2:8: `sinks`: two sinks are named `a`",
        ),
        (
            "sinks: [{name: a, file: {path: x}}, {name: b, file: {path: x}}]",
            "e.yaml:2:8: `sinks`: two sinks are writing to `file x`",
        ),
        ("sinks: [{name: A B, stdout: {}}]", "e.yaml:2:16: `sinks[0].name`: does not match"),
        (
            "sinks: [{name: a, file: {path: x, rotate: {max_bytes: 1KiB}}}]",
            "e.yaml:2:55: `sinks[0].file.rotate.max_bytes`: ",
        ),
        (MAIN + "redact: {headers: ['a b']}", "e.yaml:3:20: `redact.headers[0]`: does not match"),
        (MAIN + "redact: {client_address: hash}", "e.yaml:3:26: `redact.client_address`: expected one of"),
        (MAIN + "redact: {header: [a]}", "e.yaml:3:10: unknown field `header`; did you mean `headers`?"),
        (MAIN + "workers: 0", "e.yaml:3:10: `workers`: "),
    ],
)
def test_a_mistake_is_told_at_its_place(text: str, want: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(BASE + text)
    assert [want] == [str(problem)[: len(want)] for problem in raised.value.problems]


EXAMPLE: dict[str, Any] = {
    "listen": "127.0.0.1:0",
    "tls": None,
    "workers": 1,
    "transport": "grpcio",
    "max_in_flight": 10,
    "sinks": [
        {
            "name": "a",
            "file": {
                "path": "x",
                "rotate": {"max_bytes": "1MiB", "every": "1h", "keep": 3, "compress": "gzip"},
            },
        },
        {"name": "b", "stdout": {}},
    ],
    "redact": {"headers": ["x"], "query": ["y"], "client_address": "truncate"},
    "metadata_namespaces": ["com.acme"],
}


def test_the_example_sets_every_field() -> None:
    absent = missing(AccesslogSection, [EXAMPLE])
    elsewhere = ("Address.", "Tls.")  # an address is text to users; tests/edgekeeper spoils TLS
    assert set() == {field for field in absent if not field.startswith(elsewhere)}


@pytest.mark.parametrize("wrong", list(spoilt(AccesslogSection, EXAMPLE)), ids=lambda wrong: str(wrong.loc))
def test_each_field_that_is_wrong_is_named_on_its_line(wrong: Spoilt) -> None:
    text = wrong.yaml()
    line = 1 + next(index for index, line in enumerate(text.splitlines()) if MARK in line)
    with pytest.raises(ConfigError) as raised:
        load(text)
    (problem,) = raised.value.problems
    assert (line, wrong.problem) == (problem.line, problem.message[: len(wrong.problem)])


@pytest.mark.parametrize("wrong", list(lacking(AccesslogSection, EXAMPLE)), ids=lambda wrong: str(wrong.loc))
def test_each_field_that_is_needed_is_missed_by_name(wrong: Spoilt) -> None:
    with pytest.raises(ConfigError) as raised:
        load(wrong.yaml())
    assert wrong.problem in [problem.message for problem in raised.value.problems]
