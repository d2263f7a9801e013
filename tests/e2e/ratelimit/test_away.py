"""What a client behind the real Envoy gets when the service, or its store, is away."""

import uuid
from typing import Any

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("case", "listener", "status"),
    [
        ("plain", "edge", 200),
        ("plain", "closed", 500),
        ("allowed", "closed", 200),
        ("unlimited", "closed", 200),
    ],
)
async def test_without_the_store_each_rule_does_what_it_says(
    without_redis: Any, case: str, listener: str, status: int
) -> None:
    assert status == (await without_redis.ask(case, listener=listener)).status


async def test_a_rule_that_denies_without_the_store_is_429_with_its_body(without_redis: Any) -> None:
    answer = await without_redis.ask("denied")
    assert (429, b"busy", "0") == (answer.status, answer.body, without_redis.numbers(answer)["remaining"])


async def test_without_the_store_a_process_counts_by_itself(without_redis: Any) -> None:
    caller = uuid.uuid4().hex
    assert [200, 200, 429] == [
        (await without_redis.ask("counted", caller, listener="closed")).status for _ in range(3)
    ]


async def test_by_default_answers_bring_no_headers_but_envoy_s(without_redis: Any) -> None:
    answer = await without_redis.ask("counted")
    names = {name.lower() for name, _ in answer.headers}
    assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} == {
        name for name in names if "ratelimit" in name or name == "retry-after"
    }
    assert answer.value("x-metadata") in (None, "-", "")


async def test_without_the_service_the_failure_mode_decides(without_service: Any) -> None:
    answers = [await without_service.ask("json", listener=listener) for listener in ("edge", "closed")]
    assert [200, 500] == [answer.status for answer in answers]
