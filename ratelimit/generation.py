"""A generation: every domain of every file, and what holds for all of them. Pure: no I/O, no clock."""

from collections.abc import Mapping

import msgspec

from ratelimit.decision import Modes
from ratelimit.domain import Domain

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True):
    """All that is configured. `generation` is the digest of the files that it was made of."""

    generation: str
    domains: Mapping[str, Domain]
    modes: Modes = Modes()
