"""Every field of the section and of the files of limits wrong once: the sentence names it, at its place."""

from collections.abc import Callable

import pytest
import yaml

from edgekeeper.config import validated
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.testing import MARK, Spoilt, lacking, missing, spoilt
from edgekeeper.yaml import Document, parse
from ratelimit.config import RatelimitSection
from ratelimit.documents import domains
from ratelimit.headers import NO_HEADERS, ResponseHeaders
from ratelimit.models import LimitsFile

SECTION = {
    "listen": "unix:/run/rl.sock",
    "tls": None,
    "workers": 1,
    "transport": "grpcio",
    "max_in_flight": 5,
    "limits": ["./limits"],
    "store": {
        "memory": {"max_bytes": "64MiB"},
        "redis": {
            "url": "rediss://redis.example.com",
            "username": "edge",
            "password": "p",
            "database": 1,
            "tls": {"ca": "ca.pem", "certificate": "c.pem", "key": "k.pem", "server_name": "redis"},
            "timeout_ms": 8,
            "prefix": "e:",
            "key_secret": "0123456789abcdef",
        },
        "redis_per_second": {
            "sentinel": {"name": "m", "addresses": ["127.0.0.1:1"], "username": "u", "password": "p"}
        },
    },
    "merge_domains": True,
    "shadow_mode": True,
    "quota_mode": True,
    "near_limit_ratio": 0.5,
    "response_dynamic_metadata": True,
    "reference_metrics": True,
    "response_headers": {
        "nearest": True,
        "limit": "x-l",
        "remaining": "x-r",
        "reset": "x-s",
        "ietf": True,
        "retry_after": True,
    },
    "compat": "default",
    "on_store_error": "deny",
    "local_processes": 4,
    "over_limit_cache": "1MiB",
}
CLUSTERED = {
    "listen": "unix:/run/rl.sock",
    "limits": ["./limits"],
    "store": {"redis": {"cluster": {"addresses": ["127.0.0.1:1"]}}},
}
LIMITS = {
    "domain": "d",
    "all_or_nothing": True,
    "together": "k",
    "descriptors": [
        {
            "key": "k",
            "value": "v*",
            "rate_limit": {
                "unit": "day",
                "unit_multiplier": 2,
                "requests_per_unit": 1,
                "algorithm": "token_bucket",
                "burst": 5,
                "unlimited": False,
                "name": "n",
                "replaces": [{"name": "m"}],
            },
            "descriptors": [
                {
                    "key": "l",
                    "limits": [{"window": "10s", "requests_per_unit": 1}],
                    "ip_prefix": {"v4": 24, "v6": 48},
                    "on_store_error": "local",
                    "deny": {"headers": {"x-why": "much"}, "body": {"text": "no"}},
                },
                {"key": "m", "rate_limit": {"unit": "day"}, "deny": {"body": {"json": {"a": 1}}}},
            ],
            "shadow_mode": True,
            "quota_mode": True,
            "detailed_metric": True,
            "value_to_metric": True,
            "share_threshold": True,
            "metadata": {"a": {"b": 1}},
        }
    ],
}


def document(value):
    return parse(yaml.safe_dump(value, sort_keys=False).encode(), "f.yaml")[0]


def test_the_examples_set_every_field():
    assert set() == missing(LimitsFile, [LIMITS])
    elsewhere = ("Address.", "Tls.")  # an address is text to users; tests/edgekeeper spoils TLS
    assert set() == {
        name for name in missing(RatelimitSection, [SECTION, CLUSTERED]) if not name.startswith(elsewhere)
    }


def test_the_examples_are_valid():
    assert ["d"] == list(domains([document(LIMITS)], merge_domains=False))
    section = validated(RatelimitSection, document(SECTION))
    assert (64 << 20, 0.5) == (section.store.memory.max_bytes, section.near_limit_ratio)


def test_the_defaults_serve_a_newcomer():
    section = validated(RatelimitSection, document({"listen": "unix:/run/rl.sock", "limits": ["l"]}))
    assert (64 << 20, 0.8, 1024) == (
        section.store.memory.max_bytes,
        section.near_limit_ratio,
        section.max_in_flight,
    )
    assert ("default", "error", None, 4 << 20) == (
        section.compat,
        section.on_store_error,
        section.local_processes,
        section.over_limit_cache,
    )
    assert not any(
        (section.merge_domains, section.shadow_mode, section.quota_mode, section.response_dynamic_metadata)
    )


def only_problem(read: Callable[[Document], object], one: Spoilt) -> Problem:
    with pytest.raises(ConfigError) as caught:
        read(parse(one.yaml().encode(), "f.yaml")[0])
    (problem,) = caught.value.problems
    return problem


def line_of_mark(one: Spoilt) -> int:
    return next(number for number, line in enumerate(one.yaml().splitlines(), 1) if MARK in line)


def read_limits(document: Document) -> object:
    return domains([document], merge_domains=False)


def read_section(document: Document) -> object:
    return validated(RatelimitSection, document)


WRONG = [pytest.param(read_limits, one, id=str(one.loc)) for one in spoilt(LimitsFile, LIMITS)]
for example in (SECTION, CLUSTERED):
    WRONG += [pytest.param(read_section, one, id=str(one.loc)) for one in spoilt(RatelimitSection, example)]
LACKING = [pytest.param(read_limits, one, id=str(one.loc)) for one in lacking(LimitsFile, LIMITS)]
for example in (SECTION, CLUSTERED):
    LACKING += [
        pytest.param(read_section, one, id=str(one.loc)) for one in lacking(RatelimitSection, example)
    ]


@pytest.mark.parametrize(("read", "one"), WRONG)
def test_a_wrong_field_is_named_on_its_line(read, one):
    problem = only_problem(read, one)
    assert problem.message.startswith(one.problem)
    assert line_of_mark(one) == problem.line


@pytest.mark.parametrize(("read", "one"), LACKING)
def test_a_missing_field_is_named(read, one):
    assert only_problem(read, one).message.startswith(one.problem)


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("`limits`: needs at least 1 entry", {"limits": []}),
        ("`store.memory.max_bytes`: must be at least ", {"store": {"memory": {"max_bytes": "1KiB"}}}),
        ("`near_limit_ratio`: must be at most 1.0", {"near_limit_ratio": 1.5}),
        ("unknown field `reddis`; did you mean `redis`.", {"store": {"reddis": {}}}),
        ("`compat`: expected one of `default` or `strict`", {"compat": "lax"}),
        (
            "`on_store_error`: expected one of `allow`, `deny`, `local` or `error`",
            {"on_store_error": "ask"},
        ),
        ("`local_processes`: must be at least 1", {"local_processes": 0}),
        (
            "`response_headers.limit`: a header's name has letters",
            {"response_headers": {"limit": ":status"}},
        ),
        (
            "`response_headers.reset`: this header belongs to the connection",
            {"response_headers": {"reset": "Content-Length"}},
        ),
        (
            "`response_headers.remaining`: another header has this name",
            {"response_headers": {"nearest": True, "limit": "a", "remaining": "A"}},
        ),
        (
            "`response_headers.limit`: another header has this name",
            {"response_headers": {"nearest": True, "ietf": True, "limit": "ratelimit"}},
        ),
        (
            "`response_headers.reset`: another header has this name",
            {"response_headers": {"nearest": True, "retry_after": True, "reset": "Retry-After"}},
        ),
        ("`over_limit_cache`: must be at most 1GiB", {"over_limit_cache": "2GiB"}),
    ],
)
def test_a_bound_that_is_left_is_named(sentence, change):
    with pytest.raises(ConfigError, match=sentence.replace("`", ".")):
        validated(RatelimitSection, document(SECTION | change))


def test_workers_that_each_count_by_themselves_are_refused_with_what_to_do():
    with pytest.raises(ConfigError) as caught:
        validated(RatelimitSection, document({**SECTION, "workers": 2, "store": {}}))
    (problem,) = caught.value.problems
    assert problem.message.startswith("`workers`: each process would count by itself in the memory store")
    assert problem.message.endswith("use Redis")
    assert 3 == problem.line


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (NO_HEADERS, {}),
        (NO_HEADERS, {"limit": "ratelimit", "ietf": False}),
        (ResponseHeaders(("RateLimit-Limit", "x", "RateLimit-Reset")), {"nearest": True, "remaining": "x"}),
        (ResponseHeaders(ietf=True, retry_after=True), {"ietf": True, "retry_after": True}),
    ],
)
def test_headers_are_those_that_were_asked_for(wanted, said):
    assert (
        wanted
        == validated(
            RatelimitSection, document({**SECTION, "response_headers": said})
        ).response_headers.wanted
    )
