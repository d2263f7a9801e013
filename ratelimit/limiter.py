"""The question of one request: match every descriptor, ask the store once, decide. Application."""

from collections.abc import Sequence

import msgspec

from edgekeeper.errors import DependencyError
from ratelimit.counting import Counted, Hit
from ratelimit.decision import Decision, Modes, Verdict, decide, without_replaced
from ratelimit.descriptor import Descriptor, Request
from ratelimit.domain import Domain
from ratelimit.generation import Limits
from ratelimit.key import counter_name, joined_name, tag_of
from ratelimit.limit import Limit, OnStoreError, Role, Rule
from ratelimit.store import Store

__all__ = ["Limiter", "StoreAway"]


class StoreAway(DependencyError):  # noqa: N818 - reads as a sentence: raise StoreAway
    """Dependency error: the store cannot tell, and no rule of the request says what that means.

    `verdicts` are what would have been done for each descriptor. The outage is told once, see `outages`.
    """

    is_told = True

    def __init__(self, verdicts: Sequence[Verdict] = ()) -> None:
        self.verdicts = verdicts
        super().__init__("the store cannot tell")


class Limiter:
    """Judges requests by the limits that it is given and the counters of one store.

    `local` is the process's own store, in which rules with `on_store_error: local` count while `store` cannot tell.
    """

    def __init__(self, store: Store, local: Store) -> None:
        self._store, self._local = store, local

    async def decision(self, request: Request, limits: Limits) -> Decision:
        """Count the request and return the answer. Nothing limits in a domain that no file configures.

        Raises:
            StoreAway: Dependency error: see there.
        """
        domain = limits.domains.get(request.domain)
        if domain is None:
            return decide([Verdict(descriptor) for descriptor in request.descriptors], limits.modes)
        rules, hits = _matched(request, domain, limits.modes)
        asked = [hit for hit in hits if hit is not None]
        lenient = domain.all_or_nothing and _has_quota_left(rules, hits, hits, limits.modes)
        found = await _counted(self._store, asked, domain, lenient=lenient) if asked else ()
        answers = iter(found)
        verdicts: Sequence[Verdict] = [
            Verdict(descriptor, rule, hit, next(answers) if hit is not None else None)
            for descriptor, rule, hit in zip(request.descriptors, rules, hits)  # noqa: B905 - made of them
        ]
        if None in found:
            return await self._without_store(verdicts, domain, limits.modes)
        return decide(verdicts, limits.modes)

    async def _without_store(self, verdicts: Sequence[Verdict], domain: Domain, modes: Modes) -> Decision:
        """Return the answer where the store could not tell of some of `verdicts`.

        Raises:
            StoreAway: one of them is an error, and nothing is a refusal: a refusal is a refusal whatever else is known.
        """
        judged: Sequence[Verdict] = [
            verdict if verdict.hit is None or verdict.counted is not None else verdict.degrade(modes)
            for verdict in verdicts
        ]
        ways = {verdict.degraded for verdict in judged}
        decision = decide(judged, modes)
        if OnStoreError.LOCAL in ways and not (_is_refusal(decision) and domain.all_or_nothing):
            judged = await self._locally(judged, domain, modes)
            decision = decide(judged, modes)
        if OnStoreError.ERROR in ways and not _is_refusal(decision):
            raise StoreAway(judged)
        return decision

    async def _locally(self, verdicts: Sequence[Verdict], domain: Domain, modes: Modes) -> Sequence[Verdict]:
        """Return `verdicts` with what this process counts by itself, together what is decided together."""
        hits = [verdict.hit for verdict in verdicts]
        sent = [
            _share(verdict.hit, modes.local_processes)
            if verdict.degraded is OnStoreError.LOCAL and verdict.hit is not None
            else None
            for verdict in verdicts
        ]
        lenient = _has_quota_left([verdict.rule for verdict in verdicts], hits, sent, modes)
        asked = [hit for hit in sent if hit is not None]
        answers = iter(await _counted(self._local, asked, domain, lenient=lenient))
        return [
            msgspec.structs.replace(verdict, counted=next(answers))
            if verdict.degraded is OnStoreError.LOCAL
            else verdict
            for verdict in verdicts
        ]


def _is_refusal(decision: Decision) -> bool:
    """Return whether the limits refuse, also where the global shadow mode lets pass."""
    return decision.over or decision.watched


def _watched(hit: Hit) -> Hit:
    return msgspec.structs.replace(hit, role=Role.WATCHED) if hit.role is Role.QUOTA else hit


def _share(hit: Hit, processes: int) -> Hit:
    return msgspec.structs.replace(hit, limits=tuple([limit.share(processes) for limit in hit.limits]))


def _has_quota_left(
    rules: Sequence[Rule | None], hits: Sequence[Hit | None], sent: Sequence[Hit | None], modes: Modes
) -> bool:
    """Return whether `decide` reckons to the quota what is not among the QUOTA hits that are `sent`: it cannot be told
    there that all of the quota is over, and a group that is refused for it would let pass what it does not count.
    """
    return any(
        (modes.quota_mode or (rule is not None and rule.quota_mode and hit is not None))
        and (one is None or one.role is not Role.QUOTA)
        for rule, hit, one in zip(rules, hits, sent, strict=True)
    )


async def _counted(
    store: Store, hits: Sequence[Hit], domain: Domain, *, lenient: bool
) -> Sequence[Counted | None]:
    """Return what the counters said of each hit: one call to the store. `lenient`: no group is refused for its quota."""
    if len(hits) == 1 or not domain.all_or_nothing:
        counts = await store.count([(hit,) for hit in hits])
        return [said[0] if said is not None else None for said in counts]
    groups = _together(hits, domain)
    if lenient or sum(any(hits[place].role is Role.QUOTA for place in places) for places in groups) > 1:
        hits = [_watched(hit) for hit in hits]
    counts = await store.count([tuple([hits[place] for place in places]) for places in groups])
    found: list[Counted | None] = [None] * len(hits)
    for places, said in zip(groups, counts, strict=True):
        for place, counted in zip(places, said or (), strict=said is not None):
            found[place] = counted
    return found


def matched(request: Request, domain: Domain, modes: Modes) -> Sequence[Verdict]:
    """Return what `request` would count: for each descriptor its rule and its hit."""
    found = zip(request.descriptors, *_matched(request, domain, modes), strict=True)
    return [Verdict(descriptor, rule, hit) for descriptor, rule, hit in found]


def _matched(
    request: Request, domain: Domain, modes: Modes
) -> tuple[Sequence[Rule | None], Sequence[Hit | None]]:
    descriptors, hits_addend = request.descriptors, request.hits_addend
    rules = without_replaced(
        [domain.match(descriptor.entries) if descriptor.limit is None else None for descriptor in descriptors]
    )
    return rules, [
        _hit(descriptor, rule, hits_addend, domain, modes)
        for descriptor, rule in zip(descriptors, rules)  # noqa: B905 - made of them
    ]


def _hit(
    descriptor: Descriptor, rule: Rule | None, hits_addend: int, domain: Domain, modes: Modes
) -> Hit | None:
    """Return what is counted: by the limit that the caller brings along, else by the rule's; None: nothing limits it."""
    entries, limit = descriptor.entries, descriptor.limit
    if limit is not None:
        limits: tuple[Limit, ...] = (
            msgspec.structs.replace(limit, counts_refused=True) if modes.strict else limit,
        )
    elif rule is not None and rule.limits:
        limits = rule.limits
    else:
        return None
    role = rule.role if rule is not None else Role.ENFORCED
    if modes.quota_mode and role is Role.ENFORCED:
        role = Role.QUOTA
    name = joined_name if modes.strict else counter_name
    return Hit(
        name(domain.name, entries, rule),
        limits,
        descriptor.hits(hits_addend),
        role,
        tag_of(domain.name, entries, domain.together) if domain.together else "",
    )


def _together(hits: Sequence[Hit], domain: Domain) -> Sequence[Sequence[int]]:
    """Return the places of what is decided together in a domain that wants all or nothing."""
    if not domain.together:
        return [range(len(hits))]
    groups: dict[str | int, list[int]] = {}
    for place, hit in enumerate(hits):
        groups.setdefault(hit.tag or place, []).append(place)
    return list(groups.values())
