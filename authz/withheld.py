"""What a log never gets, however it is asked to: names that credentials travel under, values that look like one.

Sources: RFC 6265, RFC 6749, RFC 6750, RFC 9110 section 11, RFC 9449, and what common gateways and clouds call theirs.
Pure: no I/O, no clock.
"""

import re
from typing import Final

from authz.canonical import twin

__all__ = ["is_secret_header", "is_secret_name", "looks_secret"]

_HEADERS: Final = frozenset(
    {
        "api-key", "apikey", "authentication-info", "authorization", "cookie", "dpop", "proxy-authorization",
        "set-cookie", "x-api-key", "x-forwarded-authorization", "x-forwarded-client-cert", "x-goog-api-key",
        "x-original-authorization",
    }
)  # fmt: skip
_HEADER_ENDS: Final = ("-token", "-secret", "-password", "-signature", "-session")

# compared in lower case, without `-`, `_` and `.`
_NAMES: Final = frozenset(
    {
        "accesstoken", "apikey", "assertion", "auth", "authorization", "awsaccesskeyid", "clientassertion",
        "clientsecret", "codeverifier", "idtoken", "jsessionid", "jwt", "key", "passwd", "password", "pwd",
        "refreshtoken", "samlresponse", "secret", "session", "sessionid", "sid", "sig", "signature", "token",
        "xamzcredential", "xamzsecuritytoken", "xamzsignature", "xapikey", "xgoogsignature",
    }
)  # fmt: skip
_NAME_ENDS: Final = ("token", "secret", "password")

# alternatives that begin with a letter each: the search then skips to those letters
_SHAPES: Final = re.compile(
    "ey[JI][A-Za-z0-9_-]{8}"  # a JSON Web Token, a JSON Web Key
    "|ek_[0-9A-Za-z]{20}"  # our own keys
    "|-----BEGIN "
    "|AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|gh[oprsu]_[A-Za-z0-9]{20}|github_pat_|xox[abeoprs]-|sk_live_|glpat-"
)
_SCHEMES: Final = re.compile(
    r"\b(?:basic|bearer|digest|dpop|negotiate|ntlm|apikey|token) +[^ ]{8}", re.IGNORECASE
)


def is_secret_header(name: str) -> bool:
    """Return whether a header of that name, in any spelling, is a credential or holds one."""
    name = twin(name.lower())
    return name in _HEADERS or name.endswith(_HEADER_ENDS)


def is_secret_name(name: str) -> bool:
    """Return whether a query parameter or a claim of that name, in any spelling, is one."""
    name = name.lower().replace("-", "").replace("_", "").replace(".", "")
    return name in _NAMES or name.endswith(_NAME_ENDS)


def looks_secret(text: str) -> bool:
    """Return whether the text holds what looks like a token or a key."""
    return _SHAPES.search(text) is not None or (" " in text and _SCHEMES.search(text) is not None)
