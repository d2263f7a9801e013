"""A decision explained with the very bytes that Envoy gets, of files or of the running service. Edge: no I/O of its own."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote_plus

from authz import wire
from authz.attributes import Attributes
from authz.explain import Explanation, explain
from authz.identity.jwks import KeySet
from authz.policy import Policies, Policy
from authz.requests import NotARequest, of_json
from authz.wire.told import check_response
from authz.withheld import is_secret_header, is_secret_name, looks_secret

__all__ = ["asked", "told"]

_SHORTEST: Final = 8
"""Shorter values are no secrets, and to mask them would mask words."""


def told(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as plain data, with the message that Envoy gets: as JSON and as bytes."""
    message = wire.response(explanation.decision)
    response = check_response(message)
    return explanation.plain() | {
        "metadata": response.get("dynamic_metadata", {}),
        "response": response,
        "response_base64": b64encode(message).decode(),
    }


def asked(
    policies: Policies, keys: Mapping[str, KeySet], now_us: int, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """Answer an operator: what the running service would answer to `request`, a parameter (`authz.requests`).

    What the answer repeats of the request's credentials is masked: a rule may put a header into another one.

    Raises:
        NotARequest: Operator error: the parameter is missing, or no request.
    """
    if parameters.keys() != {"request"}:
        raise NotARequest("expected the parameter `request`, and no other")
    request = of_json(parameters["request"])
    explanation = explain(policies, request, now_us, keys=keys)
    plain = told(explanation)
    secrets = _repeated(plain, _secrets(request, explanation.policy))
    if not secrets:
        return plain
    masked: dict[str, Any] = _masked(plain, secrets)
    return masked | {"response_base64": ""}


def _secrets(request: Attributes, policy: Policy | None) -> Iterator[str]:
    """Yield the values that may be a credential, whole and in their parts, as they stand and as a URL has them."""
    places = (
        [source.place for source in policy.sources if source.place is not None] if policy is not None else []
    )
    ours = {name for place in places for name in (place.header, place.query) if name is not None}
    for name, values in request.headers.items():
        if name in ours or is_secret_header(name) or any(map(looks_secret, values)):
            yield from (part for value in values for part in _parts(value))
    # what is too large is refused, and nobody looks at its query
    parts = () if request.too_large else request.target.partition("?")[2].split("&")
    for spelled, _, raw in (part.partition("=") for part in parts):
        name, text = _decoded(spelled), _decoded(raw)
        if name in ours or is_secret_name(name) or looks_secret(text) or len(text) >= 2 * _SHORTEST:
            yield from (text, _quoted(text), _quoted(_quoted(text)), raw, _quoted(raw))


def _decoded(text: str) -> str:
    """Return it as `Attributes.query` has it, also where the target is no text and so refused."""
    return unquote_plus(text, errors="surrogateescape")


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def _parts(value: str) -> Iterator[str]:
    yield value
    yield from value.split(" ")
    yield from (pair.partition("=")[2].strip() for pair in value.split(";"))


def _repeated(plain: Any, secrets: Iterable[str]) -> list[str]:
    """Return the secrets that stand anywhere in `plain`, the longest first."""
    texts = "\0".join(_texts(plain))
    found = {secret for secret in secrets if len(secret) >= _SHORTEST and secret in texts}
    return sorted(found, key=len, reverse=True)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "[redacted]")
        return value
    if isinstance(value, dict):
        return {name: _masked(each, secrets) for name, each in value.items()}
    return [_masked(each, secrets) for each in value] if isinstance(value, list) else value
