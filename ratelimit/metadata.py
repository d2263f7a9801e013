"""What goes into Envoy's dynamic metadata: the request's descriptors, and the `metadata` of the rules that let it pass.

The shape is envoyproxy/ratelimit's (RESPONSE_DYNAMIC_METADATA), and `generation` is ours. Pure: no I/O, no clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ratelimit.decision import Status, Verdict
from ratelimit.descriptor import Descriptor, Request

__all__ = ["response_metadata"]


def response_metadata(
    request: Request, statuses: Sequence[Status], verdicts: Sequence[Verdict], generation: str
) -> dict[str, Any]:
    """Return the metadata of one answer: plain values that JSON knows. `generation` is that of the limits that judged.

    `metadata` is merged over the descriptors that passed; of two values for one name the first wins, and mappings
    are merged.
    """
    result: dict[str, Any] = {
        "generation": generation,
        "domain": request.domain,
        "descriptors": [_descriptor(descriptor) for descriptor in request.descriptors],
    }
    if request.hits_addend:
        result["hitsAddend"] = request.hits_addend
    merged: dict[str, Any] = {}
    for status, verdict in zip(statuses, verdicts, strict=True):
        if verdict.rule is not None and not status.over:
            merged = _merged(merged, verdict.rule.metadata)
    if merged:
        result["metadata"] = merged
    return result


def _descriptor(descriptor: Descriptor) -> dict[str, Any]:
    result: dict[str, Any] = {"entries": [f"{key}={value}" for key, value in descriptor.entries]}
    if descriptor.limit is not None:
        limit = descriptor.limit
        unit = limit.unit.name if limit.unit is not None else "UNKNOWN"
        result["limit"] = f"requests_per_unit:{limit.requests_per_unit} unit:{unit}"
    if descriptor.own_hits is not None:
        result["hitsAddend"] = descriptor.own_hits
    return result


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(first)
    for name, value in second.items():
        if name not in result:
            result[name] = value
        elif isinstance(result[name], dict) and isinstance(value, dict):
            result[name] = _merged(result[name], value)
    return result
