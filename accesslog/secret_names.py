"""By which names secrets travel: headers, parameters of a URL, keys of metadata.

Sources: the list of OpenTelemetry's semantic conventions for `url.query`, RFC 9110 section 11, RFC 6749 and 6750, and
what common gateways and clouds call theirs. What is found out of a name is remembered, since the same few names come
with every entry. Pure: no I/O, no clock.
"""

import re
from collections.abc import Callable
from typing import Final, Literal, TypeVar

__all__ = ["CREDENTIALS", "HEADER_KINDS", "NAMES_IN", "URL_SECRETS", "Remembered", "canonical"]

T = TypeVar("T")

HeaderKind = Literal["cookie", "secret", "address", "url", ""]

_SCHEME_HEADERS: Final = frozenset(
    {"authorization", "proxy-authorization", "www-authenticate", "proxy-authenticate", "authentication-info"}
)
_COOKIE_HEADERS: Final = frozenset({"cookie", "set-cookie"})
_SECRET_HEADERS: Final = frozenset(
    {
        "x-api-key", "x-auth-token", "x-amz-security-token", "x-csrf-token", "x-forwarded-client-cert", "x-xsrf-token",
        "api-key", "apikey", "x-goog-api-key", "x-forwarded-authorization", "x-original-authorization", "dpop",
    }
) | _SCHEME_HEADERS  # fmt: skip
_SECRET_SUFFIXES: Final = ("-token", "-secret", "_token", "_secret")
_URL_HEADERS: Final = frozenset(
    {"location", "content-location", "referer", "x-original-url", "x-rewrite-url"}
)
_ADDRESS_HEADERS: Final = frozenset(
    {
        "x-forwarded-for", "forwarded", "x-real-ip", "x-envoy-external-address", "true-client-ip", "cf-connecting-ip",
        "x-client-ip", "x-cluster-client-ip", "x-original-forwarded-for",
    }
)  # fmt: skip

# compared in lower case, without `-` and `_`
_SEMCONV_KEYS: Final = frozenset(
    {
        "xamzsignature", "xamzcredential", "xamzsecuritytoken", "awsaccesskeyid", "signature", "sig",
        "xgoogsignature",
    }
)  # fmt: skip
_CREDENTIAL_KEYS: Final = frozenset(
    {
        "token", "accesstoken", "idtoken", "refreshtoken", "apikey", "password", "passwd", "secret", "clientsecret",
        "jwt", "session", "auth", "authorization", "sessionid", "jsessionid", "pwd", "assertion", "clientassertion",
        "samlresponse", "codeverifier", "xapikey",
    }
)  # fmt: skip
_OAUTH_KEYS: Final = frozenset({"code", "state", "key"})
"""Secrets in a URL, ordinary words in metadata (`code: OVER_LIMIT`)."""

_METADATA_SECRETS: Final = _SEMCONV_KEYS | _CREDENTIAL_KEYS
URL_SECRETS: Final = _METADATA_SECRETS | _OAUTH_KEYS
"""The canonical names of parameters whose value is masked in a URL."""

_NAME_PARTS: Final = re.compile(r"[\[\]./]")
_NAME_NOISE: Final = re.compile(r"[-_\x00-\x20\x7f]")

_LONGEST_NAME: Final = 256
_MOST_NAMES: Final = 4096
"""What is remembered of names is bounded by these."""


class Remembered(dict[str, T]):
    """What `function` says of names. Clients choose them: long ones are not kept, and at 4096 all are forgotten."""

    def __init__(self, function: Callable[[str], T]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, name: str) -> T:
        said = self._function(name)
        if len(name) <= _LONGEST_NAME:
            if len(self) >= _MOST_NAMES:
                self.clear()
            self[name] = said
        return said


def canonical(name: str) -> str:
    """Return the name as it is compared: in lower case, without `-`, `_`, blanks and control characters."""
    return _NAME_NOISE.sub("", name.lower())


def _names_in(key: str) -> tuple[tuple[str, str], ...]:
    return tuple((canonical(part), part.strip().lower()) for part in _NAME_PARTS.split(key))


def _header_kind(name: str) -> HeaderKind:
    if name in _COOKIE_HEADERS:
        return "cookie"
    if name in _SECRET_HEADERS or name.endswith(_SECRET_SUFFIXES):
        return "secret"
    if name in _ADDRESS_HEADERS:
        return "address"
    return "url" if name in _URL_HEADERS else ""


def _is_credential(name: str) -> bool:
    return _header_kind(name.lower()) in {"cookie", "secret"} or canonical(name) in _METADATA_SECRETS


NAMES_IN: Final = Remembered(_names_in)
"""The names in a parameter's name (`user[password]`), each as it is compared and as it is told."""

HEADER_KINDS: Final = Remembered(_header_kind)
"""What a header of that name, in lower case, holds by default; empty: nothing to take care of."""

CREDENTIALS: Final = Remembered(_is_credential)
"""Whether a header or a parameter of that name, in any spelling, is a secret by default."""
