"""Whose request it is and what it asks for, or why no rule is asked: canonical or refused. Pure: no I/O, no clock."""

from collections.abc import Sequence
from typing import Final

from authz.attributes import MAX_QUERY_PARAMETERS, Attributes
from authz.canonical import STRICT, NotCanonical, Segments, host_of, segments_of, twin
from authz.policy import Policies, Policy

__all__ = ["Addressed", "Refused", "addressed", "policy_of"]

_MAX_OPTIONS: Final = 32


class Refused(Exception):  # noqa: N818 - reads as a sentence
    """Client error: this is no request that rules are asked about."""

    def __init__(self, reason: str, policy: Policy | None = None, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.policy, self.detail = reason, policy, detail


Addressed = tuple[Policy | None, str, int | None, Segments, Segments]
"""The policy that a request falls under (None: there is none), its host and port, its path as kept and as folded."""


def addressed(policies: Policies, request: Attributes) -> Addressed:
    """Return whose request it is, and its path in the one spelling that rules match, as kept and as folded.

    Raises:
        Refused: Client error: it could be read in two ways, is too large, or no request at all.
    """
    if not request.method:
        raise Refused("request.not_http")
    # a target has no more parameters than bytes
    if len(request.target) >= MAX_QUERY_PARAMETERS and request.too_large:
        raise Refused("request.too_large")
    try:
        host, port = host_of(request.host)
    except NotCanonical as error:
        raise Refused("request.bad_host", detail=str(error)) from None
    named = request.route_policy is not None  # as few are
    policy = policy_of(policies, request, host) if named else policies.hosts.nearest(host)
    options = request.options
    if options and policy is not None and _strips_trusted(options, policy):
        raise Refused("request.not_http", policy, "`connection` names a trusted header, or too many")
    try:
        kept, folded = segments_of(request.target, policy.paths_as if policy is not None else STRICT)
    except NotCanonical as error:
        if request.target:
            raise Refused("request.path_not_canonical", policy, str(error)) from None
        if request.method != "CONNECT":
            raise Refused("request.no_path", policy) from None
        kept = folded = ()
    return policy, host, port, kept, folded


def policy_of(policies: Policies, request: Attributes, host: str) -> Policy | None:
    """Return the policy that the route names (trusted: it comes from Envoy's configuration), else that of the host.

    A name is no way around the bounds of a `policies` entry: who takes a name that has become free gets no routes by it.
    """
    name = request.route_policy
    if name is None:
        return policies.hosts.nearest(host)
    policy = policies.by_name.get(name)
    if policy is None or policy.bounds is None or any(bound.matches(host) for bound in policy.bounds):
        return policy
    return None


def _strips_trusted(options: Sequence[str], policy: Policy) -> bool:
    """Return whether the client asks a hop to strip what we would set (RFC 9110 7.6.1; GHSA-w9mr-28mw-j8hg)."""
    names = ",".join(options).lower().split(",", _MAX_OPTIONS)
    return len(names) > _MAX_OPTIONS or any(twin(name.strip(" \t")) in policy.protected for name in names)
