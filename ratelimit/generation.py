"""A generation: every domain of every file, and what holds for all of them. Pure: no I/O, no clock."""

from collections.abc import Mapping

import msgspec

from ratelimit.decision import Modes
from ratelimit.domain import Domain
from ratelimit.headers import NO_HEADERS, ResponseHeaders

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True):
    """All that is configured. `generation` is the digest of the files that it was made of."""

    generation: str
    domains: Mapping[str, Domain]
    modes: Modes = Modes()
    headers: ResponseHeaders = NO_HEADERS

    @property
    def plain(self) -> bool:
        """Whether what passes is answered by statuses alone."""
        return self.headers == NO_HEADERS and not self.modes.response_dynamic_metadata
