"""Names are looked up beside the loop, one look-up at a time, and an address that was good stays good."""

import asyncio
from typing import Any

import pytest

from ratelimit.endpoint import Endpoint
from ratelimit.failures import Failed, Kind
from ratelimit.store.redis.target import Names, Target

HOST = Endpoint("redis.example.com", 6379)


class Dns:
    """Stands in for the resolver: `found` is what it says; while `answers` is not set it says nothing."""

    def __init__(self) -> None:
        self.found: list[str] | None = ["10.0.0.1"]
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = 0

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked += 1
        await self.answers.wait()
        if self.found is None:
            raise OSError("no such name")
        return [(2, 1, 6, "", (address, port)) for address in self.found]


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    found = Dns()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found.getaddrinfo, raising=False)
    return found


async def test_each_address_of_a_name_is_given_once(dns: Dns):
    dns.found = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
    assert ["10.0.0.1", "10.0.0.2"] == await Names().addresses(HOST)


async def test_a_name_without_an_address_fails_by_name(dns: Dns):
    dns.found = None
    with pytest.raises(Failed) as error:
        await Names().addresses(HOST)
    assert Kind.NAME is error.value.failure.kind


async def test_while_the_resolver_is_silent_the_last_address_serves_and_one_look_up_waits(dns: Dns):
    names = Names()
    await names.addresses(HOST)
    dns.answers.clear()
    assert [["10.0.0.1"]] * 5 == [await names.addresses(HOST) for _ in range(5)]
    await asyncio.sleep(0)
    assert 2 == dns.asked
    names.stop()


async def test_a_name_that_is_gone_keeps_its_last_address(dns: Dns):
    names = Names()
    await names.addresses(HOST)
    dns.found = None
    for _ in range(3):
        assert ["10.0.0.1"] == await names.addresses(HOST)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert dns.asked > 2
    names.stop()


async def test_a_changed_address_is_learnt_by_asking(dns: Dns):
    names = Names()
    await names.addresses(HOST)
    dns.found = ["10.0.0.2"]
    await names.addresses(HOST)  # begins to look
    for _ in range(3):
        await asyncio.sleep(0)
    assert ["10.0.0.2"] == await names.addresses(HOST)
    names.stop()


def test_a_target_does_not_show_its_password(canary: str):
    target = Target(HOST, "u", canary)
    assert canary not in repr(target)
    assert canary not in target.where
