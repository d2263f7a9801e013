"""The header `x-forwarded-client-cert`: what proxies say of their clients' certificates. Pure: no I/O, no clock.

Envoy's documentation, "HTTP header manipulation", x-forwarded-client-cert: elements by comma, one from each proxy, the
last one from the nearest; pairs by semicolon, keys in any case; a value in double quotes may hold all of these signs,
a backslash stands before a quote in it. Whatever is written otherwise is no such header.
"""

import re
from typing import Final

__all__ = ["HEADER", "last_uris"]

HEADER: Final = "x-forwarded-client-cert"
MAX_BYTES: Final = 64 * 1024

# RFC 2253 escapes backslashes in subjects, and so Envoy sends them in twos
_PAIR: Final = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;\\]*))(;|,|\Z)', re.ASCII)
_ESCAPED: Final = re.compile(r"\\(.)")
_KEYS: Final = frozenset({"by", "hash", "cert", "chain", "subject", "uri", "dns"})


def last_uris(text: str) -> list[str]:
    """Return the URIs of the last element, in their order.

    Raises:
        ValueError: Client error, or that of the proxy that wrote it: this is not such a header.
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    uris: list[str] = []
    at, separator = 0, ";"
    while separator:
        pair = _PAIR.match(text, at)
        if pair is None or pair[1].lower() not in _KEYS:
            raise ValueError("not pairs of KEY=VALUE by `;` and `,`")
        if pair[1].lower() == "uri":
            uris.append(_ESCAPED.sub(r"\1", pair[2]) if pair[2] is not None else pair[3])
        at, separator = pair.end(), pair[4]
        if separator == ",":
            uris = []
    return uris
