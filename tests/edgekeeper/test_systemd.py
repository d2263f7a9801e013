"""What systemd hears, word for word."""

import asyncio
import os
import re
import socket
from pathlib import Path

import pytest

from edgekeeper.systemd import Systemd


@pytest.fixture
def manager(sockets: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(sockets / "notify"))
        end.settimeout(5)
        yield end


@pytest.fixture
def environment(sockets: Path, manager) -> dict[str, str]:
    return {"NOTIFY_SOCKET": str(sockets / "notify")}


def test_each_word_is_one_datagram(manager, environment):
    systemd = Systemd(environment)
    systemd.ready("serving toy")
    systemd.status("busy")
    systemd.reloading()
    systemd.stopping()
    assert b"READY=1\nSTATUS=serving toy" == manager.recv(1000)
    assert b"STATUS=busy" == manager.recv(1000)
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=[0-9]+", manager.recv(1000))
    assert b"STOPPING=1" == manager.recv(1000)


def test_an_abstract_socket_is_reached():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0edgekeeper-test-{os.getpid()}")
        manager.settimeout(5)
        Systemd({"NOTIFY_SOCKET": f"@edgekeeper-test-{os.getpid()}"}).stopping()
        assert b"STOPPING=1" == manager.recv(1000)


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody-listens"])
def test_without_a_manager_nothing_happens(address):
    Systemd({"NOTIFY_SOCKET": address}).ready("serving")


@pytest.mark.parametrize("pid", [{}, {"WATCHDOG_PID": str(os.getpid())}])
async def test_the_watchdog_hears_of_a_loop_that_turns(manager, environment, pid):
    manager.setblocking(False)
    watching = asyncio.ensure_future(Systemd({**environment, "WATCHDOG_USEC": "20000", **pid}).watch())
    loop = asyncio.get_running_loop()
    for _ in range(3):
        assert b"WATCHDOG=1" == await asyncio.wait_for(loop.sock_recv(manager, 100), 5)
    watching.cancel()


@pytest.mark.parametrize(
    "variables",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}],
)
async def test_a_watchdog_that_is_not_ours_hears_nothing(environment, variables):
    await asyncio.wait_for(Systemd({**environment, **variables}).watch(), 5)
