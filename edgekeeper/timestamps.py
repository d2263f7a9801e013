"""Times as records have them: RFC 3339 in UTC. Pure: no I/O, no clock."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

__all__ = ["rfc3339"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(since_epoch: int, digits: int = 6) -> str:
    """Return the time that is `since_epoch` after 1970: microseconds, or what has `digits` digits behind the second.

    Raises:
        OverflowError: Bug: it is not within the years 1 to 9999.
    """
    seconds, rest = divmod(since_epoch, 10**digits)
    return f"{_second(seconds)}.{str(rest).zfill(digits)}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]
