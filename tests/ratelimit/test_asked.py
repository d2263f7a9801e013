"""What operators ask of the running service, and have it do: through the handlers, in one process."""

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekeeper.errors import OperatorError
from edgekeeper.service import Done, Runtime, Snapshot, Text
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit import asked, told
from ratelimit.asked import ASKS, CONTROLS
from ratelimit.counting import Counts, Group, Hit
from ratelimit.metrics import Metrics
from ratelimit.service import RateLimitService
from ratelimit.wire import MalformedRequest

TWO = """
domain: d
descriptors:
  - {key: k, rate_limit: {unit: day, requests_per_unit: 2, name: two}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: bare}
"""


@pytest.fixture
def service(limits, pure_store, clock, tmp_path) -> Callable[..., RateLimitService]:
    def make(text: str = TWO, *, store: Any = pure_store, local: Any = None, **modes: Any):
        runtime = Runtime(state=tmp_path, clock=clock, log=logging.getLogger("test.ratelimit"))
        snapshot = Snapshot(limits(text, **modes))
        return RateLimitService(store, local or store, snapshot, Metrics(runtime.registry), clock)

    return make


class Away:
    """A store that cannot tell."""

    def __init__(self) -> None:
        self.reset_hits: list[Hit] = []

    async def count(self, groups: Sequence[Group]) -> Sequence[Counts | None]:
        return [None] * len(groups)

    async def reset(self, hits: Sequence[Hit]) -> bool:
        self.reset_hits += hits
        return False

    def trouble(self) -> str:
        return "away"


def named(*entries: tuple[str, str], domain: str = "d") -> bytes:
    return json.dumps({"domain": domain, "entries": entries}).encode()


def request(value: str = "v", key: str = "k", **more: Any) -> bytes:
    descriptor = {"entries": [{"key": key, "value": value}]}
    return json.dumps({"domain": "d", "descriptors": [descriptor], **more}).encode()


async def did(name: str, service: RateLimitService, body: bytes) -> Done:
    return await CONTROLS[name].do(service, body)


# -- /ratelimit/json ---------------------------------------------------------------------------------------------------


async def test_json_counts_for_real_and_answers_as_protobuf_s_json_has_it(service):
    one = service()
    done = await did("json", one, request())
    status = {
        "code": "OK",
        "currentLimit": {"requestsPerUnit": 2, "unit": "DAY", "name": "two"},
        "limitRemaining": 1,
        "durationUntilReset": "86400s",
    }
    assert (200, {"overallCode": "OK", "statuses": [status]}) == (done.status, done.said)
    await one.should_rate_limit(told.request(request()), None)
    done = await did("json", one, request())
    assert (429, "OVER_LIMIT") == (done.status, done.said["overallCode"])
    assert "OVER_LIMIT" == done.about


async def test_json_takes_the_fields_under_both_of_their_names(service):
    one = service()
    await did("json", one, request(hitsAddend=2))
    assert 429 == (await did("json", one, request(hits_addend=1))).status


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "Failed to load JSON"),
        (b"{", "Failed to load JSON"),
        (b"[" * 60_000, "Failed to load JSON"),
        (b"[]", "no domain"),
        (b"[1]", "Failed to parse"),
        (b"\xff", "not the JSON form of a RateLimitRequest"),
        (b'{"domain": "d", "descriptor": []}', 'Message type "envoy.service.ratelimit.v3.RateLimitRequest"'),
        (b'{"domain": 5}', "Failed to parse domain field"),
        (b"{}", "no domain"),
        (b'{"domain": "d"}', "no descriptors"),
    ],
)
async def test_json_that_is_no_request_is_400_in_one_line(service, body, why):
    done = await did("json", service(), body)
    assert (400, True) == (done.status, done.said["why"].startswith(why)), done.said
    assert done.said["why"].isprintable()
    assert len(done.said["why"]) <= 300


async def test_json_is_503_when_the_store_cannot_tell(service):
    done = await did("json", service(store=Away()), request())
    assert (503, {"why": "the store cannot tell"}) == (done.status, done.said)


async def test_json_says_of_the_answer_no_more_than_its_code_for_the_log(service):
    assert "OK" == (await did("json", service(), request("secret"))).about


def test_the_json_of_a_request_is_the_request():
    content = told.request(request("\u00e9", hitsAddend=3))
    want = rls_pb2.RateLimitRequest(domain="d", hits_addend=3)
    want.descriptors.add().entries.add(key="k", value="\u00e9")
    assert want == rls_pb2.RateLimitRequest.FromString(content)
    with pytest.raises(MalformedRequest):
        told.request(b'{"domain": "\\ud800"}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["domain", "descriptors", "entries", "hitsAddend", "limit"]), inner)
    ),
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_sent_is_a_request_or_is_not(content):
    with contextlib.suppress(MalformedRequest):
        assert isinstance(told.request(content), bytes)


# -- /ratelimit/counters -----------------------------------------------------------------------------------------------


async def test_a_counter_is_told_and_nothing_is_counted_by_it(service):
    one = service()
    await did("json", one, request())
    limit = {"name": "two", "requests_per_unit": 2, "unit": "day", "window_us": 86_400_000_000}
    held = {"used": 1, "remaining": 1, "reset_us": 86_400_000_000, "over": False}
    want = {**limit, "algorithm": "fixed_window", "burst": 0, **held}
    for _ in range(3):
        done = await did("counters", one, named(("k", "v")))
        assert {
            "domain": "d",
            "domain_known": True,
            "rule": "k",
            "counter": "1:d1:k1:v",
            "limits": [want],
        } == done.said
    assert "d k" == done.about
    await did("json", one, request(hitsAddend=1))
    (held,) = (await did("counters", one, named(("k", "v")))).said["limits"]
    assert (2, 0, True) == (held["used"], held["remaining"], held["over"])


@pytest.mark.parametrize(
    ("entry", "rule"), [(("other", "v"), None), (("bare", "v"), None), (("free", "v"), "free")]
)
async def test_of_what_nothing_counts_no_counter_is_told(service, entry, rule):
    said = (await did("counters", service(), named(entry))).said
    assert {"domain": "d", "domain_known": True, "rule": rule} == said


async def test_a_domain_that_there_is_not_is_told_and_not_logged(service):
    done = await did("counters", service(), named(("k", "v"), domain="secret"))
    assert ({"domain": "secret", "domain_known": False, "rule": None}, "") == (done.said, done.about)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"\xff", b'{"domain": "d", "entries": [["a"]]}', named() + b"x", b'{"domain": "d", "entries": [], "x": 1}']
)  # fmt: skip
async def test_a_body_that_names_no_descriptor_is_refused(service, body):
    for name in ("counters", "reset"):
        with pytest.raises(OperatorError, match="expected a JSON object with `domain`, `entries`"):
            await did(name, service(), body)


async def test_a_counter_that_the_store_cannot_tell_of_is_503_and_says_why(service):
    done = await did("counters", service(store=Away()), named(("k", "v")))
    assert (503, {"why": "the store cannot tell: away"}, "d k") == (done.status, done.said, done.about)
    again = await did("reset", service(store=Away()), named(("k", "v")))
    assert (503, {"why": "the store cannot tell: away"}, "d k") == (again.status, again.said, again.about)


# -- /ratelimit/reset --------------------------------------------------------------------------------------------------


async def test_a_reset_counter_is_as_new_and_others_are_as_they_were(service):
    one = service()
    for value in ("v", "v", "w"):
        await did("json", one, request(value))
    done = await did("reset", one, named(("k", "v")))
    assert (200, True, "k", "d k") == (done.status, done.said["reset"], done.said["rule"], done.about)
    (held,) = (await did("counters", one, named(("k", "v")))).said["limits"]
    assert 0 == held["used"]
    (held,) = (await did("counters", one, named(("k", "w")))).said["limits"]
    assert 1 == held["used"]


async def test_a_reset_is_for_what_counts_by_itself_while_the_store_is_away_too(service, pure_store):
    text = """
domain: d
descriptors:
  - {key: k, on_store_error: local, rate_limit: {unit: day, requests_per_unit: 4, algorithm: token_bucket, burst: 4}}
"""
    one = service(text, store=Away(), local=pure_store, local_processes=2)
    answers = [(await did("json", one, request())).status for _ in range(3)]
    assert [200, 200, 429] == answers
    assert 503 == (await did("reset", one, named(("k", "v")))).status
    assert 200 == (await did("json", one, request())).status


async def test_what_nothing_counts_is_not_reset(service):
    done = await did("reset", service(), named(("other", "v")))
    assert {"domain": "d", "domain_known": True, "rule": None, "reset": False} == done.said


def test_each_worker_resets_and_tells_its_heaviest_and_one_counts():
    assert {"json": False, "counters": False, "reset": True, "top": True} == {
        name: control.everywhere for name, control in CONTROLS.items()
    }


# -- /ratelimit/top ----------------------------------------------------------------------------------------------------


async def test_top_tells_what_was_asked_for_most_with_its_share_of_refusals(service):
    one = service()
    for value in ("often", "often", "often", "once"):
        await did("json", one, request(value))
    done = await did("top", one, b"{}")
    assert [("k=often", 3, 1), ("k=once", 1, 0)] == [
        (heavy.entries[0], heavy.hits, heavy.refused) for heavy in done.said.keys
    ]
    assert (4, "") == (done.said.total, done.about)


async def test_top_is_of_the_last_two_minutes_by_the_service_s_clock(service, clock):
    one = service()
    await did("json", one, request())
    clock.advance(s=60)
    assert 1 == len((await did("top", one, b"{}")).said.keys)
    clock.advance(s=60)
    assert 0 == len((await did("top", one, b"{}")).said.keys)


async def test_top_of_one_domain_is_of_one_that_there_is(service):
    assert "d" == (await did("top", service(), b'{"domain": "d"}')).about
    with pytest.raises(OperatorError, match="no file of limits configures it"):
        await did("top", service(), b'{"domain": "x"}')
    with pytest.raises(OperatorError, match="expected a JSON object with `domain`"):
        await did("top", service(), b"[]")


# -- /ratelimit/rlconfig -----------------------------------------------------------------------------------------------


def rlconfig(service: RateLimitService, **parameters: str) -> list[str]:
    text = ASKS["rlconfig"](service, parameters)
    assert isinstance(text, Text)
    return text.splitlines()


def test_rlconfig_has_a_line_for_each_limit(service):
    want = [
        "d.k: unit=DAY requests_per_unit=2, name: two, shadow_mode: false",
        "d.free: unlimited, shadow_mode: false",
    ]
    assert want == rlconfig(service())


def test_rlconfig_goes_on_where_it_ended(service, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(asked, "MOST_LINES", 2)
    nodes = ", ".join(f"{{key: k{n}, rate_limit: {{unit: day, requests_per_unit: {n}}}}}" for n in range(5))
    one = service(f"domain: d\ndescriptors: [{nodes}]")
    names: list[str] = []
    starts = []
    start = "0"
    while start:
        starts.append(start)
        *found, last = rlconfig(one, **{"from": start})
        start = last.partition("from=")[2]
        names += [line.partition(":")[0] for line in [*found, *([] if start else [last])]]
    assert ([f"d.k{n}" for n in range(5)], ["0", "2", "4"]) == (names, starts)
    assert [] == rlconfig(one, **{"from": "5"})


def test_rlconfig_is_never_longer_than_an_answer_may_be(service):
    nodes = ", ".join(
        f"{{key: {'x' * 2000}{n}, rate_limit: {{unit: day, requests_per_unit: {n}}}}}" for n in range(600)
    )
    found = rlconfig(service(f"domain: d\ndescriptors: [{nodes}]"))
    assert 900_000 > sum(map(len, found)) > 800_000
    assert f"# there is more: from={len(found) - 1}" == found[-1]


def test_rlconfig_of_a_domain(service, limits):
    one = service()
    texts = [f"domain: {name}\ndescriptors: [{{key: k, rate_limit: {{unit: day}}}}]" for name in "ba"]
    one.snapshot.current = limits(*texts)
    assert ["a.k", "b.k"] == [line.partition(":")[0] for line in rlconfig(one)]
    assert ["b.k"] == [line.partition(":")[0] for line in rlconfig(one, domain="b")]


@pytest.mark.parametrize(
    "parameters", [{"domain": "x"}, {"from": "-1"}, {"from": "²"}, {"from": ""}, {"x": ""}]
)
def test_rlconfig_refuses_what_it_does_not_know(service, parameters):
    with pytest.raises(OperatorError):
        rlconfig(service(), **parameters)
