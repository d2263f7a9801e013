"""What a client behind the real Envoy gets for each kind of answer of the service."""

import asyncio
import json
import re
import uuid
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


# -- Envoy's own headers, of our statuses ------------------------------------------------------------------------------


async def test_the_status_with_least_remaining_wins_and_all_limits_are_listed(limited: Any) -> None:
    answer = await limited.asked("several", 3)
    found = limited.numbers(answer)
    assert (200, "7") == (answer.status, found["remaining"])
    assert '10, 10;w=86400;name="per-ten", 100;w=604800;name="per-week"' == found["limit"]
    assert 0 < int(found["reset"]) <= 86_400
    assert answer.value("x-envoy-ratelimited") is None


async def test_over_its_limit_a_request_is_429_with_what_is_over_first(limited: Any) -> None:
    answer = await limited.asked("tight", 2)
    found = limited.numbers(answer)
    assert (429, b"", "true", "0") == (
        answer.status,
        answer.body,
        answer.value("x-envoy-ratelimited"),
        found["remaining"],
    )
    assert '1, 1;w=86400;name="per-one", 10;w=86400;name="per-ten"' == found["limit"]


async def test_without_a_name_the_limit_has_only_its_window(limited: Any) -> None:
    assert "5, 5;w=86400" == limited.numbers(await limited.ask("plain"))["limit"]


@pytest.mark.parametrize("case", ["unlimited", "unknown", "nowhere"])
async def test_what_nothing_limits_has_no_headers(limited: Any, case: str) -> None:
    answer = await limited.ask(case)
    assert 200 == answer.status
    assert [] == [name for name, _ in answer.headers if "ratelimit" in name.lower()]


async def test_in_shadow_mode_a_request_passes_with_nothing_remaining(limited: Any) -> None:
    answer = await limited.asked("watched", 3)
    assert (200, "0") == (answer.status, limited.numbers(answer)["remaining"])
    assert (None, None) == (answer.value("retry-after"), answer.value("ratelimit"))


async def test_a_window_that_no_unit_has_is_told_without_it(limited: Any) -> None:
    answer = await limited.ask("window")
    found = limited.numbers(answer)
    assert ("9", "8") == (found["limit"], found["remaining"])
    assert '"w";q=9;w=129600' == answer.value("ratelimit-policy")


async def test_of_several_limits_the_tightest_is_the_status(limited: Any) -> None:
    answer = await limited.asked("both", 3)
    assert '3, 3;w=604800;name="b-week"' == limited.numbers(answer)["limit"]
    assert '"b-day";q=20;w=86400, "b-week";q=3;w=604800' == answer.value("ratelimit-policy")
    refused = await limited.asked("both", 5)
    assert re.fullmatch(r'"b-day";r=17;t=\d+, "b-week";r=0;t=\d+', refused.value("ratelimit") or "")


# -- our headers, and what goes with a refusal -------------------------------------------------------------------------


async def test_headers_reach_the_client_of_what_passes_and_of_what_is_refused(limited: Any) -> None:
    passed, refused = await limited.asked("tight", 1), await limited.asked("tight", 2)
    for answer, left in ((passed, "9"), (refused, "8")):
        assert ("1", "0") == (answer.value("ratelimit-limit"), answer.value("ratelimit-remaining"))
        assert limited.numbers(answer)["reset"] == answer.value("ratelimit-reset")
        assert '"per-one";q=1;w=86400, "per-ten";q=10;w=86400' == answer.value("ratelimit-policy")
        assert f'"per-ten";r={left};' in (answer.value("ratelimit") or "")
    assert passed.value("retry-after") is None
    assert 0 < int(refused.value("retry-after") or 0) <= 86_400


async def test_a_bucket_says_when_its_next_token_comes(limited: Any) -> None:
    refused = await limited.asked("bucket", 3)
    assert (429, "36, 36;w=3600") == (refused.status, limited.numbers(refused)["limit"])
    assert 90 <= int(refused.value("retry-after") or 0) <= 100
    assert '"bucket";q=2;w=200' == refused.value("ratelimit-policy")


async def test_a_refusal_has_the_rule_s_body_and_headers(limited: Any) -> None:
    answer = await limited.ask("json")
    assert (429, {"error": "too_many", "left": 0}) == (answer.status, json.loads(answer.body))
    assert ["application/json"] == answer.values("content-type")
    assert "https://example.com/limits" == answer.value("x-help")
    assert answer.value("retry-after") is None  # it would never pass


async def test_what_the_rule_says_takes_the_place_of_what_we_would(limited: Any) -> None:
    answer = await limited.ask("text")
    assert (b"come back later\n", ["17"]) == (answer.body, answer.values("retry-after"))
    assert ["text/plain; charset=utf-8"] == answer.values("content-type")


async def test_dynamic_metadata_reaches_envoy_and_nothing_reaches_the_upstream(limited: Any) -> None:
    answer = await limited.ask("told", "someone")
    found = json.loads(answer.value("x-metadata") or "{}")
    assert ("edge", {"tier": "gold"}) == (found["domain"], found["metadata"])
    assert [{"entries": ["told=someone"]}] == found["descriptors"]
    assert re.fullmatch("[0-9a-f]{12}", found["generation"])
    reached = [name.lower() for name, _ in json.loads(answer.body)["headers"]]
    assert [] == [name for name in reached if "ratelimit" in name or "retry" in name]


# -- what is counted ---------------------------------------------------------------------------------------------------


async def test_hits_are_what_the_format_says(limited: Any) -> None:
    caller = uuid.uuid4().hex
    left = [
        limited.numbers(await limited.ask("weighed", caller, x_weight=weight))["remaining"]
        for weight in ("3", "2.7", "0", "6")
    ]
    assert ["7", "5", "5", "5"] == left


async def test_a_look_takes_nothing(limited: Any) -> None:
    caller = uuid.uuid4().hex
    assert ["10", "10"] == [
        limited.numbers(await limited.ask("looked", caller))["remaining"] for _ in range(2)
    ]


async def test_what_is_given_back_when_the_stream_is_done_can_be_spent_again(limited: Any) -> None:
    caller = uuid.uuid4().hex
    assert "6" == limited.numbers(await limited.ask("refunded", caller))["remaining"]
    async with asyncio.timeout(5):
        while (left := limited.numbers(await limited.ask("looked", caller))["remaining"]) == "6":
            pass
    assert "9" == left


async def test_a_limit_that_envoy_brings_stands_in_place_of_the_rule_s(limited: Any) -> None:
    answers = [limited.numbers(await limited.ask("override", "me")) for _ in range(4)]
    assert ["2", "1", "0", "0"] == [found["remaining"] for found in answers]
    assert "3, 3;w=86400" == answers[0]["limit"]


async def test_all_or_nothing_takes_from_no_limit_when_one_refuses(limited: Any) -> None:
    together, apart = await limited.asked("together", 4), await limited.asked("apart", 4)
    assert (429, 429) == (together.status, apart.status)
    assert ("9", "6") == tuple(
        re.search(r'"[a-z-]*ten";r=(\d+)', answer.value("ratelimit") or "")[1] for answer in (together, apart)
    )


@pytest.mark.parametrize(
    ("addresses", "left"),
    [
        (("203.0.113.7", "203.0.113.250", "203.0.112.7"), ["99", "98", "99"]),
        (("2001:db8:0:1ff::1", "2001:db8:0:100::2", "2001:db8:0:200::1"), ["99", "98", "99"]),
    ],
    ids=["v4", "v6"],
)
async def test_addresses_of_one_network_are_one_caller(
    limited: Any, addresses: tuple[str, ...], left: list[str]
) -> None:
    answers = [await limited.ask("address", x_forwarded_for=address) for address in addresses]
    assert left == [limited.numbers(answer)["remaining"] for answer in answers]
