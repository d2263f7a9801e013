"""The response headers of an answer, and what goes with a refusal. Pure: no I/O, no clock.

Three ways to say one thing: envoyproxy/ratelimit's three headers about the nearest limit, the fields `RateLimit` and
`RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-09) about all limits, and `Retry-After` (RFC 9110 10.2.3).
No caller's value stands in any of them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import quote

import msgspec

from ratelimit.algorithms import Outcome
from ratelimit.decision import Decision, Status, Verdict
from ratelimit.limit import Algorithm, Deny, Limit, Role, Rule

__all__ = [
    "NO_HEADERS",
    "Header",
    "ResponseHeaders",
    "deny_of",
    "name_mistake",
    "response_headers",
    "retry_us",
    "value_mistake",
]

Header: TypeAlias = tuple[str, str]

_SECOND_US: Final = 1_000_000


class ResponseHeaders(msgspec.Struct, frozen=True):
    """Which headers an answer carries. `nearest`: the names for limit, what remains and the time; None: these are not sent."""

    nearest: tuple[str, str, str] | None = None
    ietf: bool = False
    retry_after: bool = False


NO_HEADERS: Final = ResponseHeaders()


def response_headers(decision: Decision, wanted: ResponseHeaders) -> Sequence[Header]:
    """Return the headers of an answer, in the order in which they are sent."""
    headers: list[Header] = []
    if wanted.nearest is not None and (status := _nearest(decision.statuses)) is not None:
        assert status.limit is not None
        numbers = status.limit.requests_per_unit, status.remaining, _seconds(status.reset_us)
        headers += zip(wanted.nearest, map(str, numbers), strict=True)
    if wanted.ietf:
        headers += _ietf(decision.verdicts)
    if wanted.retry_after and decision.over and (wait_us := retry_us(decision)) is not None:
        headers.append(("Retry-After", str(max(1, _seconds(wait_us)))))
    return headers


def _seconds(time_us: int) -> int:
    """Return whole seconds, rounded up: who waits so long does not come too early."""
    return -(-time_us // _SECOND_US)


# -- the nearest limit -------------------------------------------------------------------------------------------------


def _nearest(statuses: Sequence[Status]) -> Status | None:
    """Return the status with least remaining, the first of equals; one that is over comes before it, the last of several."""
    over = [status for status in statuses if status.over]
    if over:
        return over[-1]
    limited = [status for status in statuses if status.limit is not None]
    return min(limited, key=lambda status: status.remaining, default=None)


# -- the refusal -------------------------------------------------------------------------------------------------------


def deny_of(decision: Decision) -> Deny | None:
    """Return what goes with a refusal: that of the first rule that is over and has something. None: Envoy's own answer."""
    if not decision.over:
        return None
    for status, verdict in zip(decision.statuses, decision.verdicts, strict=True):
        if status.over and verdict.rule is not None and verdict.rule.deny is not None:
            return verdict.rule.deny
    return None


def retry_us(decision: Decision) -> int | None:
    """Return how long a refused request has to wait until the same one passes, if nothing else comes; None: for ever.

    All of the limits outside quota mode must have room for it again and, if all of those in quota mode were used up, one of them.
    """
    enforced: list[int | None] = []
    quota: list[tuple[bool, int | None]] = []
    for status, verdict in zip(decision.statuses, decision.verdicts, strict=True):
        if verdict.hit is not None and verdict.hit.role is Role.QUOTA:
            quota.append((status.over, status.retry_us))
        elif status.over:
            enforced.append(status.retry_us)
    if quota and all(over for over, _ in quota):
        enforced.append(min((wait for _, wait in quota if wait is not None), default=None))
    waits = [wait for wait in enforced if wait is not None]
    return max(waits, default=0) if len(waits) == len(enforced) else None


# -- RateLimit and RateLimit-Policy ------------------------------------------------------------------------------------

_OVERRIDE: Final = "override"
"""The policy of a limit that the caller brought along."""


class _Policy(msgspec.Struct, frozen=True, gc=False):
    item: str
    remaining: int
    reset_s: int


def _ietf(verdicts: Sequence[Verdict]) -> Iterator[Header]:
    """Yield both fields: an item for each policy in its least favourable state. Rules in shadow mode are not told of."""
    policies: dict[str, _Policy] = {}
    for verdict in verdicts:
        for wanted, limit, said in _told(verdict):
            item = _policy(limit)
            name = _free(wanted, item, policies)
            known, found = policies.get(name), _Policy(item, said.remaining, _reset_s(said))
            if known is None or (found.remaining, -found.reset_s) < (known.remaining, -known.reset_s):
                policies[name] = found
    if policies:
        texts = {name: _string(name) for name in policies}
        yield "RateLimit-Policy", ", ".join(texts[name] + each.item for name, each in policies.items())
        limits = (f"{texts[name]};r={each.remaining};t={each.reset_s}" for name, each in policies.items())
        yield "RateLimit", ", ".join(limits)


def _free(name: str, item: str, policies: Mapping[str, _Policy]) -> str:
    """Return the name, or one made of it if another policy has it: a client must be able to tell them apart."""
    while name in policies and policies[name].item != item:
        name += "'"
    return name


def _told(verdict: Verdict) -> Iterator[tuple[str, Limit, Outcome]]:
    rule, hit, counted = verdict.rule, verdict.hit, verdict.counted
    if hit is None or counted is None or (rule is not None and rule.shadow_mode):
        return
    for limit, said in zip(hit.limits, counted.outcomes, strict=True):
        yield limit.name or _made_name(rule, limit), limit, said


def _made_name(rule: Rule | None, limit: Limit) -> str:
    """Return the name of a limit that has none: the rule's, which is made of the configuration's words."""
    if rule is None:
        return _OVERRIDE
    return rule.label if len(rule.limits) == 1 else f"{rule.label}/{_seconds(limit.window_us)}s"


def _policy(limit: Limit) -> str:
    """Return the parameters of a policy: so much in so many seconds.

    Of a bucket that is what it holds and how long it takes to fill, so that no more remains than there is; nothing
    fills one of rate 0, so it has no window.
    """
    if limit.algorithm is not Algorithm.TOKEN_BUCKET:
        return f";q={limit.requests_per_unit};w={_seconds(limit.window_us)}"
    if not limit.requests_per_unit or not limit.burst:
        return f";q={limit.burst}"
    return f";q={limit.burst};w={_seconds(limit.burst * limit.window_us // limit.requests_per_unit)}"


def _reset_s(said: Outcome) -> int:
    """Return the seconds that go with what remains; of what is over, the moment that `Retry-After` is about (section 6)."""
    return _seconds(said.retry_us if said.over and said.retry_us is not None else said.reset_us)


@lru_cache(maxsize=4096)
def _string(text: str) -> str:
    """Return `text` as a String (RFC 9651 4.1.6), which holds printable ASCII; all else is percent-encoded."""
    printable = "".join([each if " " <= each <= "~" else quote(each, safe="") for each in text])
    return '"' + printable.replace("\\", "\\\\").replace('"', '\\"') + '"'


# -- what a header may be ----------------------------------------------------------------------------------------------

_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,200}")
_VALUE: Final = re.compile(r"[!-~\x80-\U0010ffff]([\t -~\x80-\U0010ffff]*[!-~\x80-\U0010ffff])?")
_LONGEST_VALUE: Final = 16_384

_NOT_OURS: Final = frozenset(
    {
        "connection", "content-length", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
        "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
"""RFC 9110 7.6.1: these belong to one connection or to the message that Envoy makes."""


def name_mistake(name: str) -> str:
    """Return why an answer cannot carry a header of this name, in words; empty: it can (RFC 9110 5.1)."""
    if not _NAME.fullmatch(name):
        return "a header's name has letters, digits and `-`, at most 200; none begins with `:`"
    if name.lower() in _NOT_OURS:
        return "this header belongs to the connection, or to the message that Envoy makes"
    return ""


def value_mistake(value: str) -> str:
    """Return why a header cannot have this value, in words; empty: it can (RFC 9110 5.5; Envoy's HeaderValue)."""
    if value and not _VALUE.fullmatch(value):
        return "a header's value has no control characters, and no spaces at its ends"
    if len(value.encode()) > _LONGEST_VALUE:
        return f"a header's value has at most {_LONGEST_VALUE} bytes"
    return ""
