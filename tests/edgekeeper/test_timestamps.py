"""Times of records: RFC 3339, in UTC, with as many digits as their clock has."""

import pytest

from edgekeeper.timestamps import rfc3339


@pytest.mark.parametrize(
    ("since_epoch", "digits", "want"),
    [
        (1_700_000_000_000_007, 6, "2023-11-14T22:13:20.000007Z"),
        (1_700_000_000_000_000_007, 9, "2023-11-14T22:13:20.000000007Z"),
        (0, 6, "1970-01-01T00:00:00.000000Z"),
        (-1, 6, "1969-12-31T23:59:59.999999Z"),
        (9_223_372_036_854_775_807, 9, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_a_time_is_told_to_its_last_digit(since_epoch: int, digits: int, want: str):
    assert want == rfc3339(since_epoch, digits)
