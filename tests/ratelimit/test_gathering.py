"""When what waits is sent: at once where requests come one by one, else when the loop brings no more."""

from ratelimit.gathering import ENOUGH, LONGEST_S, PART, QUIET_TURNS, REMEMBERED, Gathering


def together(timeout_s: float = 1.0) -> Gathering:
    gathering = Gathering(timeout_s)
    gathering.sent(2)
    return gathering


def test_where_requests_come_one_by_one_none_waits():
    gathering = Gathering(1.0)
    assert not gathering.goes_on(1, 0.0)
    gathering.sent(1)
    assert not gathering.goes_on(1, 0.0)


def test_where_requests_have_come_together_they_wait_until_the_loop_is_quiet():
    gathering = together()
    assert [True] * QUIET_TURNS + [False] == [gathering.goes_on(1, 0.0) for _ in range(QUIET_TURNS + 1)]


def test_each_other_request_is_waited_for_anew():
    gathering = together()
    for waiting in (1, 2, 3):
        assert all(gathering.goes_on(waiting, 0.0) for _ in range(QUIET_TURNS))
    assert not gathering.goes_on(3, 0.0)


def test_a_call_begins_with_no_turn_seen():
    gathering = together()
    assert [gathering.goes_on(3, 0.0) for _ in range(QUIET_TURNS - 1)]
    gathering.sent(3)
    assert all(gathering.goes_on(2, 0.0) for _ in range(QUIET_TURNS))


def test_no_one_waits_for_longer_than_a_few_milliseconds():
    gathering = together()
    assert gathering.goes_on(1, LONGEST_S - 0.001)
    assert not gathering.goes_on(2, LONGEST_S)


def test_no_one_waits_for_so_long_that_it_is_given_up():
    gathering = together(timeout_s=0.002)
    assert gathering.goes_on(1, 0.001)
    assert not gathering.goes_on(2, 0.002 * PART)


def test_enough_are_enough():
    gathering = together()
    assert gathering.goes_on(ENOUGH - 1, 0.0)
    assert not gathering.goes_on(ENOUGH, 0.0)


def test_that_requests_came_together_is_forgotten_after_some_calls_of_one_each():
    gathering = together()
    for _ in range(REMEMBERED - 1):
        gathering.sent(1)
    assert gathering.goes_on(1, 0.0)
    gathering.sent(1)
    assert not gathering.goes_on(1, 0.0)
