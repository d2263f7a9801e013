"""edgekeeper.yaml, and every field of every model that users write, wrong once.

examples/ holds documents that set every field; a field that stands in none of them fails a test here.
"""

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekeeper import settings
from edgekeeper.config import Model, validated
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.settings import Settings, Unreadable, find, load, services
from edgekeeper.testing import MARK, Spoilt, lacking, missing, spoilt
from edgekeeper.yaml import Document, parse

EXAMPLES = Path(__file__).with_name("examples")


@functools.cache
def models() -> dict[str, type[Model]]:
    """Every model of a file: that of edgekeeper.yaml with the installed services, and those of their documents."""
    known = services()
    found: dict[str, type[Model]] = {"edgekeeper": settings.model(known)}
    for service in known.values():
        found |= service.documents
    return found


def examples(name: str) -> list[Any]:
    return list(yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()))


NAMES = [file.stem for file in sorted(EXAMPLES.iterdir())]


def problems(model: type[Model], document: Document) -> list[Problem]:
    try:
        validated(model, document)
    except ConfigError as error:
        return list(error.problems)
    return []


def test_every_model_has_its_examples():
    assert set(models()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_are_good_and_set_every_field(name: str):
    model = models()[name]
    for document in parse((EXAMPLES / f"{name}.yaml").read_bytes(), name):
        assert [] == problems(model, document)
    assert set() == missing(model, examples(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_field_is_one_sentence_with_its_name_on_its_line(name: str):
    model = models()[name]
    unsaid = [
        f"{one.loc}: {[*map(str, found)]}"
        for example in examples(name)
        for one in spoilt(model, example)
        if not said_so(one, text := one.yaml(), found := problems(model, *parse(text.encode(), "f.yaml")))
    ]
    assert [] == unsaid


def said_so(one: Spoilt, text: str, found: list[Problem]) -> bool:
    (line,) = [number for number, content in enumerate(text.splitlines(), start=1) if MARK in content]
    said = [(problem.line, problem.message[: len(one.problem)]) for problem in found]
    quoted = any(MARK in str(problem).replace(f"unknown_{MARK}", "") for problem in found)
    return said == [(line, one.problem)] and not quoted


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_field_is_one_sentence_with_its_name_at_its_parent(name: str):
    model = models()[name]
    for example in examples(name):
        for one in lacking(model, example):
            (document,) = parse(one.yaml().encode(), "f.yaml")
            (problem,) = problems(model, document)
            assert one.problem == problem.message
            assert document.place(one.loc[:-1], key=True) == (problem.line, problem.column)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_says_what_it_is(name: str):
    schema = models()[name].model_json_schema(by_alias=True)
    described = {
        f"#/$defs/{title}": one.get("description", "") for title, one in schema.get("$defs", {}).items()
    }
    silent = [
        f"{title}.{field}"
        for title, one in {name: schema, **schema.get("$defs", {})}.items()
        for field, about in one.get("properties", {}).items()
        if title != "Address" and not about.get("description", described.get(about.get("$ref")))
    ]
    assert [] == silent


class Pair(Model):
    left: str
    """The left one."""

    right: tuple[int, ...] = ()
    """The right ones."""


def test_every_field_is_spoilt_once_and_what_no_example_sets_is_missing():
    assert [("left",), (f"unknown_{MARK}",)] == [one.loc for one in spoilt(Pair, {"left": "a"})]
    assert {"Pair.right"} == missing(Pair, [{"left": "a"}])
    assert [("left",)] == [one.loc for one in lacking(Pair, {"left": "a", "right": [1]})]
    wanted = [("left",), ("right",), ("right", 0), (f"unknown_{MARK}",)]
    assert wanted == [one.loc for one in spoilt(Pair, {"left": "a", "right": [1]})]


# -- the file


def loaded(in_process, **root: Any) -> Settings:
    return load(str(in_process.write(**root)))


def refused(in_process, **root: Any) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        loaded(in_process, **root)
    return [str(problem).removeprefix(str(in_process.config)) for problem in raised.value.problems]


def test_paths_are_relative_to_the_file(in_process, monkeypatch):
    monkeypatch.chdir("/")
    got = loaded(in_process)
    assert in_process.place / "state" == got.state
    assert str(in_process.place / "toy.sock") == got.section("toy").listen.path
    assert (str(in_process.place / "toy.yaml"),) == got.section("toy").greetings


def test_what_is_not_written_has_its_default(in_process):
    in_process.config.write_text("state: s\ntoy: {listen: 'localhost:0', greetings: [a]}\n")
    got = load(str(in_process.config))
    assert ("127.0.0.1:9931", "edgekeeper") == (str(got.root.admin.listen), got.root.telemetry.service_name)
    assert (1024, 1, "grpcio", None) == tuple(
        getattr(got.section("toy"), name) for name in ("max_in_flight", "workers", "transport", "tls")
    )


def test_a_service_without_a_section_does_not_run(in_process):
    in_process.sections["twin"] = None
    got = loaded(in_process)
    assert ["toy"] == list(got.sections)
    with pytest.raises(ConfigError, match="there is no section `twin`"):
        got.section("twin")


def test_a_file_without_a_service_is_an_error(in_process):
    in_process.sections.clear()
    assert [":1:1: no service has a section; known: toy, twin"] == refused(in_process)


@pytest.mark.parametrize(("text", "count"), [("", 0), ("a: 1\n---\nb: 1\n", 2)])
def test_a_file_has_one_document(in_process, text: str, count: int):
    in_process.config.write_text(text)
    with pytest.raises(ConfigError, match=f"one YAML document is needed, got {count}"):
        load(str(in_process.config))


@pytest.mark.parametrize(
    ("root", "want"),
    [
        (
            {"admin": {"control": "localhost:1"}},
            "`admin.control`: expected `unix:PATH`: who may change state is decided by the mode of a socket",
        ),
        ({"admin": {"listen": "0.0.0.0:1"}}, ":1:17: `admin.listen`: plaintext beyond loopback"),
        (
            {"telemetry": {"trace_sample": 0.5}},
            "`telemetry.trace_sample`: traces need `otlp_endpoint`: there is nowhere to send them",
        ),
        (
            {"telemetry": {"otlp_endpoint": "http://x", "trace_sample": 1.5}},
            "`telemetry.trace_sample`: must be at most 1.0",
        ),
        ({"telemetry": {"service_name": ""}}, "`telemetry.service_name`: needs at least 1 character"),
        ({"autz": {}}, "unknown field `autz`; known here: `state`, `admin`, `telemetry`, `toy`, `twin`"),
        ({"tyo": {}}, "unknown field `tyo`; did you mean `toy`?"),
    ],
)
def test_what_this_edition_does_not_do_is_refused(in_process, root: dict[str, Any], want: str):
    (problem,) = refused(in_process, **root)
    assert want.lstrip(":0123456789") in problem


@pytest.mark.parametrize(
    ("field", "value", "want"),
    [
        ("workers", 0, "must be at least 1"),
        ("workers", 65, "must be at most 64"),
        ("transport", "envoy", "expected `grpcio`; nothing else in this edition"),
        ("max_in_flight", 0, "must be at least 1"),
        ("max_in_flight", 100_001, "must be at most 100000"),
    ],
)
def test_what_every_section_has_is_checked(in_process, field: str, value: Any, want: str):
    in_process.sections["toy"][field] = value
    (problem,) = refused(in_process)
    assert problem.endswith(f"`toy.{field}`: {want}")


@pytest.mark.parametrize(
    ("endpoint", "want"),
    [
        ("collector:4318", "expected a URL, as in `http://127.0.0.1:4318`"),
        ("grpc://collector:4317", "expected a URL, as in `http://127.0.0.1:4318`"),
        ("http://", "expected a URL, as in `http://127.0.0.1:4318`"),
        ("http://a b", "expected a URL, as in `http://127.0.0.1:4318`"),
        ("http://[::1", "expected a URL, as in `http://127.0.0.1:4318`"),
        ("http://a:port", "expected a URL, as in `http://127.0.0.1:4318`"),
        ("http://a:99999", "expected a URL, as in `http://127.0.0.1:4318`"),
        (
            f"http://me:{MARK}@a",
            "no user or password here: set `OTEL_EXPORTER_OTLP_HEADERS` in the environment",
        ),
        (f"http://a/?key={MARK}", "a base URL has no query and no fragment"),
        (f"http://a/#{MARK}", "a base URL has no query and no fragment"),
    ],
)
def test_the_endpoint_of_a_collector_is_a_base_url(in_process, endpoint: str, want: str):
    (problem,) = refused(in_process, telemetry={"otlp_endpoint": endpoint, "trace_sample": 0.5})
    assert problem.endswith(f"`telemetry.otlp_endpoint`: {want}")


@pytest.mark.parametrize(
    ("endpoint", "want"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("https://collector.example.com/otlp/", "https://collector.example.com/otlp"),
        ("http://[::1]:4318//", "http://[::1]:4318"),
    ],
)
def test_a_final_slash_of_the_endpoint_is_nothing(in_process, endpoint: str, want: str):
    assert want == loaded(in_process, telemetry={"otlp_endpoint": endpoint}).root.telemetry.otlp_endpoint


def test_two_addresses_of_admin_are_two(in_process):
    same = {"listen": "unix:a.sock", "control": "unix:a.sock"}
    (problem,) = refused(in_process, admin=same)
    assert "is the address of `admin" in problem


def test_the_environment_is_read_in_this_file(in_process, monkeypatch):
    monkeypatch.setenv("EK_STATE", "elsewhere")
    monkeypatch.setenv("EK_MANY", "7")
    in_process.config.write_text(
        "state: ./${EK_STATE}/$$x\n"
        "toy:\n  listen: localhost:1\n  greetings: [a]\n  max_in_flight: ${EK_MANY}\n"
    )
    got = load(str(in_process.config))
    assert (in_process.place / "elsewhere" / "$x", 7) == (got.state, got.section("toy").max_in_flight)


def test_an_unset_variable_is_an_error_with_its_name(in_process, monkeypatch):
    monkeypatch.delenv("EK_NOT_SET", raising=False)
    (problem,) = refused(in_process, state="${EK_NOT_SET}")
    assert problem.endswith("the environment variable `EK_NOT_SET` is not set")


def test_a_service_that_runs_alone_reads_no_other_section(in_process):
    in_process.sections["twin"] = {"wrong": 1}
    toy = services()["toy"]
    assert ["toy"] == list(load(str(in_process.write()), {"toy": toy}).sections)
    with pytest.raises(ConfigError, match="unknown field `wrong`"):
        load(str(in_process.config))


def test_the_named_file_is_found_or_unreadable(tmp_path: Path):
    with pytest.raises(Unreadable, match=r"no configuration: .*/gone\.yaml does not exist"):
        find(str(tmp_path / "gone.yaml"))
    with pytest.raises(Unreadable, match="/proc/self/mem: cannot be read"):
        load("/proc/self/mem", {})


def test_without_a_name_the_usual_places_are_looked_at_in_their_order(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "PLACES", ("edgekeeper.yaml", f"{tmp_path}/etc.yaml"))
    (tmp_path / "etc.yaml").write_bytes(b"")
    assert tmp_path / "etc.yaml" == find(None)
    (tmp_path / "edgekeeper.yaml").write_bytes(b"")
    assert tmp_path / "edgekeeper.yaml" == find(None)


@pytest.mark.parametrize(
    ("toy", "twin", "want"),
    [
        (("unix:a.sock", 2), ("unix:a-1.sock", 1), "a-1.sock is the address of worker 1 of `toy` too"),
        (("unix:a.sock", 2), ("unix:b.sock", 2), None),
        (
            ("127.0.0.1:9000", 3),
            ("127.0.0.1:9002", 1),
            "127.0.0.1:9002 is the address of worker 2 of `toy` too",
        ),
        (("127.0.0.1:9000", 2), ("127.0.0.1:9002", 1), None),
        (("127.0.0.1:0", 3), ("127.0.0.1:0", 3), None),
        (("127.0.0.1:65535", 2), ("unix:b.sock", 1), "worker 1 of `toy` would listen on 127.0.0.1:65536"),
        (("unix:b.sock", 2), ("unix:admin-1.sock", 1), None),
    ],
)
def test_no_two_workers_may_have_one_address(in_process, toy, twin, want):
    for name, (listen, workers) in (("toy", toy), ("twin", twin)):
        in_process.sections[name] |= {"listen": listen, "workers": workers}
    in_process.write()
    if want is None:
        load(str(in_process.config))
        return
    with pytest.raises(ConfigError) as caught:
        load(str(in_process.config))
    (problem,) = caught.value.problems
    assert want in problem.message
    assert problem.line > 0


def test_given_what_stood_in_the_file_it_is_not_read_again(in_process):
    content = in_process.config.read_bytes().replace(b"state: state", b"state: there")
    in_process.config.unlink()
    settings = load(str(in_process.config), content=content)
    assert (in_process.config, in_process.place / "there") == (settings.path, settings.state)
