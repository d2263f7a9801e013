"""Names of servers: looked up in a thread, and what that is worth when DNS is slow or away."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ratelimit.endpoint import Endpoint
from ratelimit.failures import Failed, Kind
from ratelimit.store.redis.target import Names

SLOW, QUICK = Endpoint("slow.test", 1), Endpoint("quick.test", 2)


class Dns:
    """Answers at once, or for names of `slow` when it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked = 0
        self.is_away = False

    def getaddrinfo(self, host: str, port: int, *_: Any) -> list[Any]:
        self.asked += 1
        if host == SLOW.host:
            assert self.may_answer.wait(20)
        if self.is_away:
            raise socket.gaierror(socket.EAI_AGAIN, "away")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{port}", port))]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    found = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)  # asyncio calls it in a thread
    yield found
    found.may_answer.set()


async def test_a_name_that_is_slow_to_find_holds_nobody_up_who_needs_another(dns: Dns):
    names = Names()
    waiting = asyncio.create_task(names.addresses(SLOW))
    await asyncio.sleep(0)
    assert ["192.0.2.2"] == await names.addresses(QUICK)
    assert not waiting.done()
    dns.may_answer.set()
    assert ["192.0.2.1"] == await waiting


async def test_an_address_that_is_known_serves_while_the_name_is_looked_up_or_lost(dns: Dns):
    names = Names()
    dns.may_answer.set()
    assert ["192.0.2.1"] == await names.addresses(SLOW)
    dns.may_answer.clear()
    assert ["192.0.2.1"] == await names.addresses(SLOW)  # it is being looked up, for ever
    dns.is_away = True
    dns.may_answer.set()
    assert ["192.0.2.1"] == await names.addresses(SLOW)


async def test_a_name_that_was_never_found_is_a_failure_by_its_name(dns: Dns):
    dns.is_away = True
    with pytest.raises(Failed) as failed:
        await Names().addresses(QUICK)
    assert Kind.NAME is failed.value.failure.kind
