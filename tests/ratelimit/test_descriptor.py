"""How many hits a descriptor stands for."""

import pytest

from ratelimit.descriptor import Descriptor


@pytest.mark.parametrize(
    ("hits", "of_request", "own", "refund"),
    [
        (1, 0, None, False),
        (1, 1, None, False),
        (5, 5, None, False),
        (0, 5, 0, False),
        (0, 0, 0, False),
        (3, 5, 3, False),
        (2**64 - 1, 0, 2**64 - 1, False),
        (-3, 5, 3, True),
        (-5, 5, None, True),
        (-1, 0, None, True),
        (0, 5, 0, True),
    ],
)
def test_a_descriptor_s_own_hits_win_and_a_request_s_zero_is_one(hits, of_request, own, refund):
    assert hits == Descriptor((), own_hits=own, refund=refund).hits(of_request)
