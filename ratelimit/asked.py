"""What operators ask of the running service, and have it do. Edge: asks the store.

`/ratelimit/rlconfig` tells what is configured, on the admin address. All else is a control (`admin.control`): `json`
counts, `reset` forgets, and `counters` and `top` show callers' data: who can scrape metrics is not to see those.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import msgspec

from edgekeeper.errors import DependencyError, OperatorError
from edgekeeper.rpc import Call
from edgekeeper.service import Ask, Control, Done, Text
from ratelimit import told
from ratelimit.counting import Counted, Hit
from ratelimit.descriptor import Descriptor, Entries, Request
from ratelimit.generation import Limits
from ratelimit.limiter import matched
from ratelimit.listing import lines, plain, rules
from ratelimit.service import RateLimitService
from ratelimit.wire import MalformedRequest

__all__ = ["ASKS", "CONTROLS"]

MOST_LINES: Final = 1_000
"""About as many limits are told at once: some milliseconds of the loop that serves. To leave out 100,000 takes 30 more."""

_MAX_LINES_BYTES: Final = 900_000


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `counters` and `reset`: one descriptor. `entries` are pairs of key and value."""

    domain: str
    entries: Entries


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `top`. `domain` None: all of them."""

    domain: str | None = None


def rlconfig(service: RateLimitService, parameters: Mapping[str, str]) -> Text:
    """Tell the limits in force, a line each; `domain` says of which domain, `from` how many rules to leave out.

    What is too much for one answer ends with a line that says how to go on.

    Raises:
        OperatorError: Operator error: another parameter, a domain that there is not, or a `from` that is no number.
    """
    if not parameters.keys() <= {"domain", "from"}:
        raise OperatorError("expected the parameters `domain` and `from`, or none")
    start = parameters.get("from", "0")
    if not (start.isascii() and start.isdigit() and len(start) < 10):
        raise OperatorError("`from`: expected a number")
    domains = service.snapshot.current.domains
    if "domain" in parameters and parameters["domain"] not in domains:
        raise OperatorError("`domain`: no file of limits configures it")
    names = [parameters["domain"]] if "domain" in parameters else sorted(domains)
    every = ((name, rule) for name in names for rule in rules(domains[name]))
    found: list[str] = []
    size = 0
    for number, (name, rule) in enumerate(islice(every, int(start), None), start=int(start)):
        of_rule = [*lines(name, rule)]
        size += sum(len(line.encode(errors="replace")) + 1 for line in of_rule)
        if found and (len(found) >= MOST_LINES or size > _MAX_LINES_BYTES):
            found.append(f"# there is more: from={number}")
            break
        found += of_rule
    return Text("".join(f"{line}\n" for line in found))


async def decided(service: RateLimitService, body: bytes) -> Done:
    """Count a request for real, given and answered in JSON, as envoyproxy/ratelimit's `/json` does.

    200 OK, 429 OVER_LIMIT, 400 what cannot be answered, 503 when the store cannot tell (there it is 400 and 500).
    """
    try:
        answer = await service.should_rate_limit(told.request(body), Call())
    except MalformedRequest as error:
        return Done({"why": error.detail}, 400)
    except DependencyError:
        return Done({"why": "the store cannot tell"}, 503)
    said = told.response(answer)
    return Done(said, 429 if said["overallCode"] == "OVER_LIMIT" else 200, said["overallCode"])


async def counters(service: RateLimitService, body: bytes) -> Done:
    """Tell what the counters of one descriptor hold; nothing is counted."""
    named = _read(body, Named)
    limits = service.snapshot.current
    found, hit = _found(limits, named)
    if hit is None:
        return Done(found)
    (counts,) = await service.store.count([(hit,)])
    if counts is None:
        return Done({"why": _away(service)}, 503, _about(found))
    return Done(found | {"limits": _held(hit, counts[0])}, about=_about(found))


async def reset(service: RateLimitService, body: bytes) -> Done:
    """Set the counters of one descriptor to nothing: those of the store, and what this process holds of them itself."""
    named = _read(body, Named)
    limits = service.snapshot.current
    found, hit = _found(limits, named)
    if hit is None:
        return Done(found | {"reset": False})
    shares = tuple([limit.share(limits.modes.local_processes) for limit in hit.limits])
    await service.local.reset([hit, msgspec.structs.replace(hit, limits=shares)])
    if not await service.store.reset([hit]):
        return Done({"why": _away(service)}, 503, _about(found))
    return Done(found | {"reset": True}, about=_about(found))


def _away(service: RateLimitService) -> str:
    return ": ".join(filter(None, ("the store cannot tell", service.store.trouble())))


async def top(service: RateLimitService, body: bytes) -> Done:
    """Tell the heaviest keys of this process (`ratelimit.top`)."""
    which = _read(body, Which)
    if which.domain is not None and which.domain not in service.snapshot.current.domains:
        raise OperatorError("`domain`: no file of limits configures it")
    service.top.roll(service.clock.monotonic_us())
    return Done(service.top.report(which.domain), about=which.domain or "")


def _read(body: bytes, type_: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = ", ".join(f"`{name}`" for name in type_.__struct_fields__)
        raise OperatorError(f"expected a JSON object with {fields}") from None


def _found(limits: Limits, named: Named) -> tuple[dict[str, Any], Hit | None]:
    """Return what a descriptor finds, and the hit that looks at its counters; None: nothing is counted for it."""
    domain = limits.domains.get(named.domain)
    if domain is None:
        return {"domain": named.domain, "domain_known": False, "rule": None}, None
    request = Request(named.domain, (Descriptor(named.entries, own_hits=0),))
    (verdict,) = matched(request, domain, limits.modes)
    label = verdict.rule.label if verdict.rule is not None else None
    found = {"domain": named.domain, "domain_known": True, "rule": label}
    if verdict.hit is not None:
        found["counter"] = verdict.hit.name
    return found, verdict.hit


def _held(hit: Hit, counted: Counted) -> list[dict[str, Any]]:
    return [
        plain(limit)
        | {
            "used": said.before,
            "remaining": said.remaining,
            "reset_us": said.reset_us,
            "over": said.over,
        }
        for limit, said in zip(hit.limits, counted.outcomes, strict=True)
    ]


def _about(found: Mapping[str, Any]) -> str:
    return f"{found['domain']} {found['rule']}"


ASKS: Final[Mapping[str, Ask]] = {"rlconfig": rlconfig}

CONTROLS: Final[Mapping[str, Control]] = {
    "json": Control(decided),
    "counters": Control(counters),
    "reset": Control(reset, everywhere=True),
    "top": Control(top, everywhere=True),
}
