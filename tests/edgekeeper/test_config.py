"""Every kind of mistake has one sentence, at its place, and no sentence quotes a value."""

import textwrap
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal

import pytest
from pydantic import Field, model_validator

from edgekeeper.config import (
    Address,
    Bytes,
    Duration,
    Listen,
    Many,
    Model,
    Place,
    Tls,
    exactly_one,
    mistake_at,
    validated,
)
from edgekeeper.errors import ConfigError
from edgekeeper.service import Section
from edgekeeper.yaml import Document, parse

SECRET = "hunter2-canary"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Choice(Model):
    file: str | None = None
    url: str | None = None
    inline: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one(self) -> "Choice":
        exactly_one(self, ["file", "url", "inline"])
        return self


class Leaf(Model):
    name: str
    rate_limit: int = Field(default=1, ge=1, le=10)


class Everything(Model):
    text: str = Field(default="x", min_length=2, max_length=4)
    code: str = Field(default="a", pattern="^[a-z]+$")
    number: int = Field(default=1, ge=1, le=10)
    above: int = Field(default=1, gt=0, lt=10)
    share: float = Field(default=0.5, ge=0.0, le=1.0)
    flag: bool = False
    names: Many[str] = Field(default=("a",), min_length=1, max_length=2)
    table: dict[str, int] = Field(default_factory=dict)
    leaf: Leaf | None = None
    leaves: Many[Leaf] = ()
    by_name: dict[str, Leaf] = Field(default_factory=dict)
    mode: Literal["enforce", "shadow"] = "enforce"
    colour: Colour | None = Field(default=None, strict=False)
    choice: Choice | None = None
    nothing: None = None
    wait: Duration = Field(default=1, le=60_000_000)
    memory: Bytes = Field(default=1024, ge=1024)
    listen: Listen | None = None
    place: Place | None = None
    origin: dict[str, str] = Field(default_factory=dict, alias="from")


def document(text: str) -> Document:
    (parsed,) = parse(textwrap.dedent(text).encode(), "f.yaml")
    return parsed


def good(text: str, base: str | None = None) -> Everything:
    return validated(Everything, document(text), base=PurePath(base) if base else None)


def problems(text: str, model: type[Model] = Everything) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        validated(model, document(text), base=PurePath("/etc/edgekeeper"))
    return [str(problem) for problem in raised.value.problems]


DURATION = "expected a number with a unit (us, ms, s, m, h, d), as in `5s`"
BYTES = "expected a number with a unit (B, KiB, MiB, GiB), as in `64MiB`"
LISTEN = "expected `unix:PATH` or `HOST:PORT` with a port of 0 to 65535"
LOOPBACK = "plaintext beyond loopback: listen on 127.0.0.1, [::1] or a Unix socket"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("numbre: 1", "1:1: unknown field `numbre`; did you mean `number`?"),
        ("leaf: {name: a, ratelimit: 1}", "1:17: unknown field `ratelimit`; did you mean `rate_limit`?"),
        ("leaf: {name: a, zzz: 1}", "1:17: unknown field `zzz`; known here: `name`, `rate_limit`"),
        ("leaves:\n- name: a\n  nam: b", "3:3: unknown field `nam`; did you mean `name`?"),
        ("by_name:\n  x: {name: a, rate: 1}", "2:16: unknown field `rate`; known here: `name`, `rate_limit`"),
        ("form: {}", "1:1: unknown field `form`; did you mean `from`?"),
        ("leaf: {rate_limit: 1}", "1:1: missing field `leaf.name`"),
        ("leaves:\n  - {name: a}\n  - {}", "3:5: missing field `leaves[1].name`"),
        ("by_name:\n  x: {}", "2:3: missing field `by_name.x.name`"),
        ("text: 5", "1:7: `text`: expected text, got a number; quote it"),
        ("text: 1.5", "1:7: `text`: expected text, got a number; quote it"),
        ("text: true", "1:7: `text`: expected text, got a boolean; quote it"),
        ("text: no", "1:7: `text`: expected text, got `no`; YAML 1.1 reads it as a boolean: quote it"),
        ("names: [On]", "1:9: `names[0]`: expected text, got `On`; YAML 1.1 reads it as a boolean: quote it"),
        ("text:", "1:6: `text`: expected text, got nothing"),
        ("text: [a]", "1:7: `text`: expected text, got a list"),
        ("text: {a: b}", "1:7: `text`: expected text, got a mapping"),
        ("text: a", "1:7: `text`: needs at least 2 characters"),
        ("text: abcde", "1:7: `text`: needs at most 4 characters"),
        ("code: A1", "1:7: `code`: does not match `^[a-z]+$`"),
        ("number: '5'", "1:9: `number`: expected an integer, got text"),
        ("number: 1.0", "1:9: `number`: expected an integer, got a number"),
        ("number: true", "1:9: `number`: expected an integer, got a boolean"),
        ("number: off", "1:9: `number`: expected an integer, got `off`; YAML 1.1 reads it as a boolean: quote it"),
        ("number: 0", "1:9: `number`: must be at least 1"),
        ("number: 11", "1:9: `number`: must be at most 10"),
        ("above: 0", "1:8: `above`: must be more than 0"),
        ("above: 10", "1:8: `above`: must be less than 10"),
        ("share: x", "1:8: `share`: expected a number, got text"),
        ("share: 1.5", "1:8: `share`: must be at most 1.0"),
        ("flag: 1", "1:7: `flag`: expected true or false, got a number"),
        ("flag: 'yes'", "1:7: `flag`: expected true or false, got text"),
        ("names: a", "1:8: `names`: expected a list, got text"),
        ("names: {a: b}", "1:8: `names`: expected a list, got a mapping"),
        ("names: []", "1:8: `names`: needs at least 1 entry"),
        ("names: [a, b, c]", "1:8: `names`: needs at most 2 entries"),
        ("names: [a, 5]", "1:12: `names[1]`: expected text, got a number; quote it"),
        ("table: [a]", "1:8: `table`: expected a mapping, got a list"),
        ("table: {a: b}", "1:12: `table.a`: expected an integer, got text"),
        ("leaf: a", "1:7: `leaf`: expected a mapping, got text"),
        ("leaves: [a]", "1:10: `leaves[0]`: expected a mapping, got text"),
        (
            "mode: off",
            "1:7: `mode`: expected one of `enforce` or `shadow`, got `off`; YAML 1.1 reads it as a boolean: quote it",
        ),
        ("mode: 5", "1:7: `mode`: expected one of `enforce` or `shadow`"),
        ("mode: shade", "1:7: `mode`: expected one of `enforce` or `shadow`"),
        ("colour: green", "1:9: `colour`: expected one of `red` or `blue`"),
        ("nothing: 5", "1:10: `nothing`: expected null; nothing else in this edition"),
        ("choice: {}", "1:9: `choice`: exactly one of `file`, `url`, `inline` is needed, got none"),
        (
            "choice: {file: a, inline: {}}",
            "1:9: `choice`: exactly one of `file`, `url`, `inline` is needed, got `file` and `inline`",
        ),
        *((f"wait: {wrong}", f"1:7: `wait`: {DURATION}") for wrong in ("5", "5 s", "-5s", "1.5s", "s", "5S", "1h30m", "[5s]")),
        ("wait: 2m", "1:7: `wait`: must be at most 1m"),
        *((f"memory: {wrong}", f"1:9: `memory`: {BYTES}") for wrong in ("64", "64MB", "64mib", "64 MiB", "0x1B")),
        ("wait: 90s", "1:7: `wait`: must be at most 1m"),
        ("wait: 2h", "1:7: `wait`: must be at most 1m"),
        ("memory: 1023B", "1:9: `memory`: must be at least 1KiB"),
        ("memory: 0KiB", "1:9: `memory`: must be at least 1KiB"),
        *((f"listen: {wrong}", f"1:9: `listen`: {LISTEN}") for wrong in ("localhost", "127.0.0.1:65536", "'127.0.0.1:'")),
        ("listen: 0.0.0.0:80", f"1:9: `listen`: {LOOPBACK}"),
        ("listen: '[::]:80'", f"1:9: `listen`: {LOOPBACK}"),
        ("listen: 192.0.2.1:80", f"1:9: `listen`: {LOOPBACK}"),
        ("listen: example.com:80", "1:9: `listen`: the host must be an IP address or `localhost`"),
        ("listen: ':80'", "1:9: `listen`: the host must be an IP address or `localhost`"),
        ("listen: 80", "1:9: `listen`: expected text: `unix:PATH` or `HOST:PORT`"),
        ("listen: {path: x}", "1:9: `listen`: expected text: `unix:PATH` or `HOST:PORT`"),
        (f"listen: unix:/{'x' * 98}", "1:9: `listen`: the path of a Unix socket must have 1 to 97 bytes"),
        ('listen: "unix:a\\0b"', "1:9: `listen`: a path cannot hold a zero byte"),
        ("place: ''", "1:8: `place`: needs at least 1 character"),
        ('place: "a\\0b"', "1:8: `place`: a path cannot hold a zero byte"),
        ("place: 5", "1:8: `place`: expected text, got a number; quote it"),
        ("[a]", "1:1: expected a mapping, got a list"),
        ("just text", "1:1: expected a mapping, got text"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_at_its_place(text: str, want: str):
    assert [f"f.yaml:{want}"] == problems(text)


def test_all_mistakes_of_a_file_are_told_at_once_in_the_order_of_the_file():
    text = """\
        numbre: 1
        leaf:
          rate_limit: 50
        text: 5
        names: [a, 1]
        """
    assert [
        "f.yaml:1:1: unknown field `numbre`; did you mean `number`?",
        "f.yaml:2:1: missing field `leaf.name`",
        "f.yaml:3:15: `leaf.rate_limit`: must be at most 10",
        "f.yaml:4:7: `text`: expected text, got a number; quote it",
        "f.yaml:5:12: `names[1]`: expected text, got a number; quote it",
    ] == problems(text)


@pytest.mark.parametrize("name", sorted(set(Everything.model_fields) - {"origin"}))
@pytest.mark.parametrize(
    "wrong", [SECRET, [SECRET], {"x": SECRET}, {"x": {"y": [SECRET]}}, [[{"y": SECRET}]]]
)
def test_no_sentence_quotes_a_value(name: str, wrong: Any):
    import yaml

    parsed = document(yaml.safe_dump({name: wrong}))
    said = ""
    try:
        validated(Everything, parsed)
    except ConfigError as error:
        said = f"{error} {error.problems!r}"
    assert SECRET not in said


def test_an_empty_document_is_a_mapping_of_defaults():
    assert Everything() == good("---\n")


def test_what_an_empty_document_lacks_is_missing_at_its_end():
    assert ["f.yaml:3:1: missing field `name`"] == problems("# nothing\n---\n", Leaf)


def test_a_model_in_the_middle_of_a_document_has_its_problems_there():
    parsed = document("metadata: {}\nspec:\n  name: 5\n")
    with pytest.raises(ConfigError) as raised:
        validated(Leaf, parsed, at=("spec",))
    assert "f.yaml:3:9: `spec.name`: expected text, got a number; quote it" == str(raised.value)
    assert "b" == validated(Leaf, parsed, at=("spec",), value={"name": "b"}).name


def test_a_model_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Leaf(name="a").name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "us"),
    [("0s", 0), ("250us", 250), ("8ms", 8_000), ("5s", 5_000_000), ("1m", 60_000_000)],
)
def test_a_duration_is_microseconds(text: str, us: int):
    assert us == good(f"wait: {text}").wait


@pytest.mark.parametrize(("text", "days"), [("24h", 1), ("30d", 30)])
def test_a_long_duration_is_microseconds(text: str, days: int):
    class Long(Model):
        wait: Duration

    assert days * 86_400_000_000 == validated(Long, document(f"wait: {text}")).wait


@pytest.mark.parametrize(
    ("text", "size"), [("1024B", 1024), ("1KiB", 1024), ("64MiB", 64 << 20), ("2GiB", 2 << 30)]
)
def test_an_amount_is_bytes(text: str, size: int):
    assert size == good(f"memory: {text}").memory


@pytest.mark.parametrize(
    ("text", "want", "shown"),
    [
        ("127.0.0.1:80", Address(host="127.0.0.1", port=80), "127.0.0.1:80"),
        ("127.8.9.1:0", Address(host="127.8.9.1", port=0), "127.8.9.1:0"),
        ("localhost:65535", Address(host="127.0.0.1", port=65535), "127.0.0.1:65535"),
        ("'[::1]:80'", Address(host="::1", port=80), "[::1]:80"),
        ("unix:/run/a.sock", Address(path="/run/a.sock"), "unix:/run/a.sock"),
        ("unix:./a.sock", Address(path="/base/a.sock"), "unix:/base/a.sock"),
    ],
)
def test_an_address_is_a_socket_or_loopback(text: str, want: Address, shown: str):
    address = good(f"listen: {text}", "/base").listen
    assert want == address
    assert shown == str(address)


@pytest.mark.parametrize(("text", "want"), [("a/b", "/base/a/b"), ("./a", "/base/a"), ("/x", "/x")])
def test_a_relative_place_starts_at_the_file_that_it_stands_in(text: str, want: str):
    assert want == good(f"place: {text}", "/base").place


def test_the_longest_socket_path_leaves_room_for_the_name_of_the_process():
    assert f"/{'x' * 96}" == good(f"listen: unix:/{'x' * 96}").listen.path


def test_the_schema_shows_scalars_with_a_unit_as_text():
    properties = Everything.model_json_schema()["properties"]
    assert ("string", "string") == (properties["wait"]["type"], properties["memory"]["type"])


# -- who may be listened to

FILES = "certificate: a, key: b"
WIDE = "plaintext beyond loopback; set `tls` with `certificate`, `key` and `client_ca`, or listen on 127.0.0.1, [::1] or a Unix socket"
ANYONE = "anyone on the network could ask for decisions; set `client_ca`, or listen on loopback"
ON_UNIX = (
    "does nothing on a Unix socket, whose mode says who may connect; leave it out, or listen on HOST:PORT"
)
NAME = (
    "expected a DNS name in lower case (`envoy.example.com`, `*.example.com`) or a URI"
    " (`spiffe://example.com/envoy`) of the certificate's subject alternative names"
)


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "'[::]:80'", "192.0.2.1:80", "'[2001:db8::1]:80'", "10.0.0.1:0"]
)
def test_a_wide_address_needs_tls_with_a_client_ca(listen: str):
    at = f"f.yaml:1:9: `listen`: {WIDE}"
    assert [at] == problems(f"listen: {listen}", Section)
    assert [at] == problems(f"listen: {listen}\ntls: null", Section)
    assert [f"f.yaml:2:6: `tls`: {ANYONE}"] == problems(f"listen: {listen}\ntls: {{{FILES}}}", Section)
    section = validated(Section, document(f"listen: {listen}\ntls: {{{FILES}, client_ca: c}}"))
    assert (True, "c") == (section.listen.wide, section.tls.client_ca)


@pytest.mark.parametrize("listen", ["localhost:80", "127.9.9.9:80", "'[::1]:80'"])
def test_on_loopback_tls_is_a_choice(listen: str):
    for tls in ("null", f"{{{FILES}}}", f"{{{FILES}, client_ca: c, client_names: [a.example.com]}}"):
        assert not validated(Section, document(f"listen: {listen}\ntls: {tls}")).listen.wide


def test_on_a_unix_socket_tls_is_refused():
    text = f"listen: unix:/run/a.sock\ntls: {{{FILES}, client_ca: c}}"
    assert [f"f.yaml:2:6: `tls`: {ON_UNIX}"] == problems(text, Section)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("{}", ["1:1: missing field `certificate`", "1:1: missing field `key`"]),
        (
            f"{FILES}, client_names: [a]",
            ["1:40: `client_names`: nobody's names are known without `client_ca`; set it as well"],
        ),
        (f"{FILES}, client_names: []", []),
        *(
            (f"{FILES}, client_ca: c, client_names: ['{wrong}']", [f"1:55: `client_names[0]`: {NAME}"])
            for wrong in (
                "", "A.example.com", "*", "*.", "a.*.example.com", "a*.example.com", "*.*.com", "10.0.0.1", "::1", "a b",
                "a@example.com", "-a.example.com", ".example.com", "example.com.", "spiffe://", "spiffe://a/*", "x" * 64,
                "spiffe://me@a/b",
            )
        ),
        *(
            (f"{FILES}, client_ca: c, client_names: ['{right}']", [])
            for right in ("a", "*.example.com", "a_b.example.com", "spiffe://example.com/ns/x", "https://a/b?c=d", "x" * 63)
        ),
    ],
)  # fmt: skip
def test_the_names_of_clients_are_names_that_a_certificate_can_have(text: str, want: list[str]):
    text = f"{{{text}}}" if text != "{}" else text
    try:
        found = [str(problem) for problem in problems(text, Tls)]
    except pytest.fail.Exception:
        found = []
    assert [f"f.yaml:{one}" for one in want] == found


def test_the_files_of_tls_are_relative_to_the_file_that_names_them():
    tls = validated(Tls, document(f"{{{FILES}, client_ca: ./c}}"), base=PurePath("/base"))
    assert ("/base/a", "/base/b", "/base/c") == (tls.certificate, tls.key, tls.client_ca)


def test_a_validator_of_a_whole_model_can_point_at_a_field():
    class Pair(Model):
        left: int
        right: int

        @model_validator(mode="after")
        def _rising(self) -> "Pair":
            raise mistake_at("right", "too small")

    assert ["f.yaml:2:8: `right`: too small"] == problems("left: 2\nright: 1", Pair)
