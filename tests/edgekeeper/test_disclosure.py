"""The configuration as anybody may see it: whole, and without a secret."""

from typing import Any

import pytest
from pydantic import Field

from edgekeeper.config import Bytes, Many, Model
from edgekeeper.disclosure import REDACTED, disclosed
from edgekeeper.reference import schema


class Sink(Model):
    url: str
    headers: dict[str, str] = Field(default_factory=dict)
    password: str | None = None
    timeout_s: int = 5


class Memory(Model):
    max_bytes: Bytes = 1 << 26


class Root(Model):
    name: str = "edge"
    sinks: Many[Sink] = ()
    memory: Memory = Field(default_factory=Memory)
    spare: Memory | None = None
    jwks: dict[str, Any] | None = None


def shown(**written: Any) -> Any:
    return disclosed(schema({"": Root}, ""), written)


def test_what_is_not_written_is_shown_with_its_default():
    assert {
        "name": "edge",
        "sinks": [],
        "memory": {"max_bytes": "64MiB"},
        "spare": None,
        "jwks": None,
    } == shown()


def test_what_is_written_is_shown_as_it_stands_and_in_the_order_of_the_model():
    got = shown(memory={"max_bytes": "1MiB"}, name="mine", spare={})
    assert ["name", "sinks", "memory", "spare", "jwks"] == list(got)
    assert ("mine", "1MiB", "64MiB") == (got["name"], got["memory"]["max_bytes"], got["spare"]["max_bytes"])


def test_the_entries_of_a_list_have_defaults_too():
    (sink,) = shown(sinks=[{"url": "http://a/"}])["sinks"]
    assert ("http://a/", 5) == (sink["url"], sink["timeout_s"])


def test_a_variable_is_shown_by_its_name():
    (sink,) = shown(sinks=[{"url": "${URL}", "password": "${PASSWORD}"}])["sinks"]
    assert ("${URL}", "${PASSWORD}") == (sink["url"], sink["password"])


def test_a_field_that_nobody_knows_is_shown_by_the_same_rules(canary: str):
    assert {"x": 1, "token": REDACTED} == {
        k: v for k, v in shown(x=1, token=canary).items() if k in {"x", "token"}
    }


NAMES = [
    "password", "db_password", "passphrase", "secret", "client_secret", "clientSecret", "token", "access_token",
    "api_key", "apikey", "apiKey", "x-api-key", "key", "keys", "signing_key", "private_key", "auth", "authorization",
    "cookie", "credentials", "salt", "hmac", "dsn", "jwk", "jwks", "pin", "psk", "TOKEN", "sasToken",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "wrap", [lambda secret: secret, lambda secret: [secret, secret], lambda secret: f"${{A}}{secret}"]
)
def test_a_value_that_is_named_like_a_secret_is_left_out(canary: str, name: str, wrap):
    assert REDACTED == shown(**{name: wrap(canary)})[name]


@pytest.mark.parametrize("name", ["monkey", "keyboard", "author", "spin", "listen", "keep", "compass_"[:-2]])
def test_a_name_that_only_looks_like_one_is_shown(name: str):
    assert "plain" == shown(**{name: "plain"})[name]


def test_the_headers_of_a_sink_are_shown_by_their_names(canary: str):
    (sink,) = shown(sinks=[{"url": "x", "headers": {"x-team": canary, "dd-api-key": canary}}])["sinks"]
    assert {"x-team": REDACTED, "dd-api-key": REDACTED} == sink["headers"]


def test_the_value_of_a_pair_of_name_and_value_is_left_out(canary: str):
    assert [{"name": "x-team", "value": REDACTED}] == shown(headers=[{"name": "x-team", "value": canary}])[
        "headers"
    ]


def test_a_list_of_header_names_is_no_secret():
    assert ["x-one"] == shown(headers=["x-one"])["headers"]


def test_a_key_set_is_shown_without_its_keys(canary: str):
    assert {"keys": REDACTED} == shown(jwks={"keys": [{"kty": "oct", "k": canary}]})["jwks"]


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("redis://me:{}@h:6379/0", f"redis://{REDACTED}@h:6379/0"),
        ("redis://:{}@h", f"redis://{REDACTED}@h"),
        ("https://{}@h/x", f"https://{REDACTED}@h/x"),
        ("https://h/x?k={}", f"https://h/x?{REDACTED}"),
        ("https://h/x#{}", f"https://h/x#{REDACTED}"),
        ("https://a@b:{}@h/x", f"https://{REDACTED}@h/x"),
        ("redis://user:p@ss/{}@h", REDACTED),
        ("redis://a@h1,redis://u:{}@h2", REDACTED),
        ("redis://h1,u:{}@h2", f"redis://{REDACTED}@h2"),
        ("see https://me:{}@h, please", f"see https://{REDACTED}@h, please"),
        ("http://[{}", REDACTED),
        ("-----BEGIN PRIVATE KEY-----\n{}", REDACTED),
        ("eyJhbGciOiJub25lIn0.{}.x", REDACTED),
    ],
)
def test_text_that_holds_a_secret_in_a_known_place_is_shown_without_it(canary: str, url: str, want: str):
    assert want == shown(name=url.replace("{}", canary))["name"]


@pytest.mark.parametrize(
    "text", ["unix:/run/a.sock", "http://127.0.0.1:4318", "redis://h:6379/0", "a: b", "eye", ""]
)
def test_other_text_is_shown_as_it_is(text: str):
    assert text == shown(name=text)["name"]


@pytest.mark.parametrize("mark", "/?#")
def test_a_password_that_should_have_been_escaped_is_not_shown_either(mark):
    (sink,) = shown(sinks=[{"url": f"redis://user:begin{mark}end@host:6379/0"}])["sinks"]
    assert REDACTED == sink["url"]
