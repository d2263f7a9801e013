"""What of `store.redis` is refused, and that nothing of it tells a secret."""

from typing import Any

import pytest

from edgekeeper.config import validated
from edgekeeper.disclosure import disclosed
from edgekeeper.errors import ConfigError
from edgekeeper.reference import schema
from edgekeeper.yaml import parse
from ratelimit.config import StoreSection
from ratelimit.redis_section import RedisSection


def read(text: str) -> RedisSection:
    return validated(RedisSection, parse(text.encode(), "f.yaml")[0])


def problems(text: str, model: Any = RedisSection) -> list[str]:
    with pytest.raises(ConfigError) as error:
        validated(model, parse(text.encode(), "f.yaml")[0])
    return [problem.message for problem in error.value.problems]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "exactly one of `url`, `sentinel`, `cluster` is needed"),
        ("{url: redis://h, cluster: {addresses: [h:1]}}", "exactly one of"),
        ("{url: http://h}", "expected `redis://HOST:PORT`"),
        ("{url: redis://h, username: u}", "a user needs `password`"),
        ("{url: redis://:p@h, password: p}", "stands in `url` as well"),
        ("{url: redis://h/1, database: 2}", "stands in `url` as well"),
        ("{url: unix:///s, tls: {}}", "does nothing on a Unix socket"),
        ("{url: redis://h, timeout_ms: 0}", "must be at least 1"),
        ("{url: redis://h, timeout_ms: 1001}", "must be at most 1000"),
        ("{url: redis://h, database: -1}", "must be at least 0"),
        ("{url: redis://h, prefix: 'a{b'}", "without `{` and `}`"),
        ("{url: redis://h, prefix: 'a}'}", "without `{` and `}`"),
        ('{url: redis://h, prefix: "a\\n"}', "printable"),
        ("{url: redis://h, key_secret: short}", "at least 16"),
        ("{url: redis://h, tls: {certificate: c}}", "does nothing without `key`"),
        ("{url: redis://h, tls: {key: k}}", "does nothing without `certificate`"),
        ("{cluster: {addresses: []}}", "at least 1"),
        ("{cluster: {addresses: [h]}}", "expected `HOST:PORT`"),
        ("{cluster: {addresses: [h:1]}, database: 1}", "a cluster has only database 0"),
        ("{sentinel: {addresses: [h:1]}}", "missing field"),
        ("{sentinel: {name: n, addresses: []}}", "at least 1"),
        ("{sentinel: {name: n, addresses: [h:1], username: u}}", "a user needs `password`"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str):
    (problem,) = problems(text)
    assert words in problem


def test_limits_of_a_second_need_a_redis_for_the_others():
    (problem,) = problems("{redis_per_second: {url: redis://h}}", StoreSection)
    assert "set `redis`" in problem


def test_a_store_says_what_it_is():
    def said(text: str) -> tuple[bool, bool, bool]:
        store = validated(StoreSection, parse(text.encode(), "f.yaml")[0])
        return store.shared, store.clustered, store.split

    assert (False, False, False) == said("{}")
    assert (True, False, False) == said("{redis: {url: redis://h}}")
    assert (True, True, False) == said("{redis: {cluster: {addresses: [h:1]}}}")
    assert (True, True, True) == said(
        "{redis: {url: redis://h}, redis_per_second: {cluster: {addresses: [h:1]}}}"
    )


def test_the_time_of_a_call_fits_into_what_envoy_waits():
    assert 2 * read("{url: redis://h}").timeout_ms < 20


@pytest.mark.parametrize(
    "text",
    [
        "{{url: 'redis://u:{0}@h:x'}}",
        "{{url: 'redis://h', username: u, password: [{0}]}}",
        "{{url: 'redis://:{0}@h', password: {0}}}",
        "{{url: 'redis://h', key_secret: {0}, prefix: '{{'}}",
        "{{sentinel: {{name: n, addresses: ['{0}@h:1'], password: {0}}}}}",
    ],
)
def test_no_mistake_repeats_a_secret(text: str, canary: str):
    assert [] == [problem for problem in problems(text.format(canary)) if canary in problem]


def test_no_secret_is_disclosed(canary: str):
    written = {
        "redis": {"url": f"redis://u:{canary}@h", "password": canary, "key_secret": canary},
        "redis_per_second": {
            "sentinel": {"name": "n", "addresses": ["h:1"], "password": canary},
            "password": canary,
        },
    }
    shown = disclosed(schema({"": StoreSection}, ""), written)
    assert canary not in str(shown)
    assert "redis://[redacted]@h" == shown["redis"]["url"]
