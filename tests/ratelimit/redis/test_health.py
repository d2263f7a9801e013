"""What an operator is told of a server: that it does not count, that it does again, and not each time that it wavers."""

import logging

import pytest

from ratelimit.failures import Failure, Kind
from ratelimit.store.redis.health import QUIET_US, Health

GONE, BACK = "Redis does not count", "Redis counts again"
FULL = Failure(Kind.MEMORY, "here")  # one is enough to leave it alone
START_US = 1_000_000_000


@pytest.fixture
def health() -> Health:
    return Health("here", logging.getLogger("edgekeeper.test"))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_outage_is_told_at_its_beginning_and_at_its_end(health, said):
    for later_us in (0, 100_000, 200_000):
        health.bad(FULL, START_US + later_us)
    assert [GONE] == said()
    health.good()
    health.good()
    assert [GONE, BACK] == said()


def test_a_server_that_wavers_is_told_once(health, said):
    for later_us in range(0, QUIET_US, 100_000):
        health.bad(FULL, START_US + later_us)
        health.good()
    assert [GONE, BACK] == said()
    assert "" == health.trouble(is_connected=True)


def test_an_outage_that_lasts_is_told_though_another_one_has_just_been(health, said):
    health.bad(FULL, START_US)
    health.good()
    for later_us in (100_000, QUIET_US - 1, QUIET_US):
        health.bad(FULL, START_US + later_us)
    assert [GONE, BACK, GONE] == said()
    assert health.trouble(is_connected=True)


def test_the_time_in_which_it_is_not_told_begins_with_the_last_failure_of_an_outage(health, said):
    health.bad(FULL, START_US)
    health.bad(FULL, START_US + QUIET_US)
    health.good()
    health.bad(FULL, START_US + 2 * QUIET_US - 1)
    health.good()
    health.bad(FULL, START_US + 2 * QUIET_US)
    assert [GONE, BACK, GONE] == said()
