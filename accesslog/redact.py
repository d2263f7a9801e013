"""What of a request is a secret, and what stands in its place.

On by default (facts: semconv's list for `url.query`, and the names that credentials travel under). A name stays, its
value becomes `REDACTED`. Each mask is noted in a `Found`: the place, and its class for the metric. It is a sieve for
the places where secrets are known to be, not a proof that there is none. Pure: no I/O, no clock.
"""

import ipaddress
import re
from typing import Any, Final, Literal
from urllib.parse import unquote, unquote_plus

import msgspec

from accesslog.secret_names import CREDENTIALS, HEADER_KINDS, NAMES_IN, URL_SECRETS, canonical

__all__ = ["FIELD_CLASSES", "MASK", "FieldClass", "Found", "Redactor", "jwt_masked"]

MASK: Final = "REDACTED"

FieldClass = Literal["header", "cookie", "query", "metadata", "pattern"]
FIELD_CLASSES: Final[tuple[FieldClass, ...]] = ("header", "cookie", "query", "metadata", "pattern")

Found = dict[str, FieldClass]
"""Where something was masked: `url.query.token` to `query`."""

_SCHEMES: Final = frozenset(
    {
        "basic", "bearer", "digest", "dpop", "gnap", "hoba", "mutual", "negotiate", "ntlm", "oauth", "privatetoken",
        "scram-sha-1", "scram-sha-256", "vapid", "aws4-hmac-sha256", "apikey", "token",
    }
)  # fmt: skip
_COOKIE_FLAGS: Final = frozenset({"secure", "httponly", "partitioned"})

_QUERY_SEPARATOR: Final = re.compile(r"([&;?#])")
_PATH_SEPARATOR: Final = re.compile(r"([/;])")
_QUERY_BEGINS: Final = re.compile(r"[?#]")
_NESTED_SEPARATOR: Final = re.compile(r"[?&;#/]")
_SPECIAL: Final = re.compile(r"[ /?]")
"""What is a URL or begins with a scheme and a space has one of these."""
_USERINFO: Final = re.compile(r"(^//|://)[^/?#\s]*@")
# always matches as far as it can and then looks for a dot, so that no input makes it slow
_JWT: Final = re.compile(rb"eyJ[A-Za-z0-9_-]*+(?:(?:\.|%(?:25)*2[eE])[A-Za-z0-9_-]*+)*+")
_IPV4: Final = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_IPV6: Final = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f.]{0,15}){2,8}(?![\w:.])")

_DECODINGS: Final = 3
"""How often a text is percent-decoded to see what hides in it."""


class Redactor(msgspec.Struct, frozen=True):
    """The rules in force. `headers` (lower case) and `query` name secrets besides the defaults.

    `truncate_addresses` keeps the network of a client only: /24 of IPv4, /48 of IPv6.
    """

    headers: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()
    truncate_addresses: bool = False

    @staticmethod
    def of(headers: tuple[str, ...], query: tuple[str, ...], *, truncate_addresses: bool) -> "Redactor":
        """Return the rules with the names as users write them."""
        return Redactor(
            headers=frozenset(name.lower() for name in headers),
            query=frozenset(canonical(name) for name in query),
            truncate_addresses=truncate_addresses,
        )

    def header(self, name: str, value: str, place: str, found: Found) -> str:
        """Return the value of a header (`name` in lower case), masked where it is a secret or holds one."""
        kind = HEADER_KINDS[name]
        if kind == "cookie":
            found[place] = "cookie"
            return _cookies_masked(value)
        if kind == "secret" or name in self.headers or _begins_with_scheme(value):
            found[place] = "header"
            return _scheme_kept(value)
        if kind == "address" and self.truncate_addresses:
            return self.addresses(value)
        if kind == "url" or _looks_like_url(value):
            return self.url(value, place, found)
        return value

    def url(self, text: str, place: str, found: Found) -> str:
        """Return a URL, relative or not, with userinfo and the values of secret parameters masked."""
        if "@" in text:
            text, hits = _USERINFO.subn(rf"\1{MASK}:{MASK}@", text)
            if hits:
                found[f"{place}.userinfo"] = "query"
        begin = _QUERY_BEGINS.search(text)
        if begin is None:
            return self._path(text, place, found)
        path, query = text[: begin.start()], text[begin.end() :]
        return self._path(path, place, found) + begin[0] + self.query_string(query, place, found)

    def target(self, text: str, found: Found) -> tuple[str, str]:
        """Return path and query of a request target, masked; the query without its `?`, empty if there is none."""
        path, mark, query = text.partition("?")
        masked = self.url(path, "url.path", found)
        return masked, self.query_string(query, "url.query", found) if mark else ""

    def query_string(self, text: str, place: str, found: Found) -> str:
        """Return a query or a fragment with the values of its secret parameters masked."""
        return self._masked(_QUERY_SEPARATOR.split(text), place, found)

    def value(self, name: str, value: Any, place: str, found: Found) -> Any:
        """Return a metadata value or custom tag, and all that is in it, masked where a name says that it is secret."""
        if self._is_secret_name(name):
            found[place] = "metadata"
            return MASK
        if isinstance(value, str):
            if _SPECIAL.search(value) is None:
                return value
            if _begins_with_scheme(value):
                found[place] = "metadata"
                return _scheme_kept(value)
            return self.url(value, place, found) if _looks_like_url(value) else value
        if isinstance(value, dict):
            return {key: self.value(key, inner, f"{place}.{key}", found) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value("", inner, place, found) for inner in value]
        return value

    def address(self, host: str) -> str:
        """Return the address of a client as the rules want it; what is no IP address stays."""
        if not self.truncate_addresses:
            return host
        try:
            ip = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return host
        if ip.version == 6 and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        network = ipaddress.ip_network((ip, 24 if ip.version == 4 else 48), strict=False)
        return str(network.network_address)

    def addresses(self, text: str) -> str:
        """Return the text with each IP address in it as `address` gives it."""
        text = _IPV6.sub(lambda match: self.address(match[0]), text)
        return _IPV4.sub(lambda match: self.address(match[0]), text)

    def _path(self, path: str, place: str, found: Found) -> str:
        if "=" not in path and "%" not in path:
            return path
        return self._masked(_PATH_SEPARATOR.split(path), place, found)

    def _masked(self, pieces: list[str], place: str, found: Found) -> str:
        """Mask in pieces, with a separator at each odd index."""
        masked = False
        for index in range(0, len(pieces), 2):
            piece = pieces[index]
            # `;`, `?` and `#` may as well be part of the value that was masked before them
            continues = masked and index > 0 and pieces[index - 1] in ";?#" and piece and "=" not in piece
            pieces[index], name = (MASK, "") if continues else self._piece(piece)
            masked = bool(continues or name)
            if name:
                found[f"{place}.{name}"] = "query"
        return "".join(pieces)

    def _piece(self, piece: str) -> tuple[str, str]:
        """Return `key=value` as it may be written, and the name of the secret in it, if there is one."""
        key, equals, value = piece.partition("=")
        if equals and value and (name := self._secret_key(key)):
            return f"{key}={MASK}", name
        if equals and self._hides_secret(value):
            return f"{key}={MASK}", "nested"
        if "%" in key and self._hides_secret(piece):
            return MASK, "nested"
        return piece, ""

    def _hides_secret(self, text: str) -> bool:
        """Whether a URL with a secret in it stands in the text, percent-encoded or not."""
        for _ in range(_DECODINGS + 1):
            if "=" in text and any(map(self._is_secret_pair, _NESTED_SEPARATOR.split(text))):
                return True
            if "@" in text and _USERINFO.search(text):
                return True
            if "%" not in text:
                return False
            text = unquote(text)
        return False

    def _is_secret_pair(self, piece: str) -> bool:
        parts = piece.split("=")
        return any(self._secret_key(key) and any(parts[i:]) for i, key in enumerate(parts[:-1], start=1))

    def _secret_key(self, key: str) -> str:
        """Return the part of a parameter's name (`user[password]`) that makes it a secret, or nothing."""
        for _ in range(_DECODINGS):
            if "%" not in key:
                break
            key = unquote_plus(key)
        for name, written in NAMES_IN[key]:
            if name in URL_SECRETS or name in self.query:
                return written
        return ""

    def _is_secret_name(self, name: str) -> bool:
        if CREDENTIALS[name]:
            return True
        if not self.headers and not self.query:
            return False
        return name.lower() in self.headers or canonical(name) in self.query


def jwt_masked(line: bytes) -> tuple[bytes, int]:
    """Return an encoded line with everything that looks like a JSON web token masked, and how many there were.

    It looks for `eyJ`, which is `{"` in base64url, with a dot after it, plain or percent-encoded. None of its letters
    is ever escaped in JSON, so the line stays JSON.
    """
    count = 0

    def masked(match: re.Match[bytes]) -> bytes:
        nonlocal count
        if b"." not in match[0] and b"%" not in match[0]:
            return match[0]
        count += 1
        return MASK.encode()

    return (_JWT.sub(masked, line), count) if b"eyJ" in line else (line, 0)


def _looks_like_url(value: str) -> bool:
    return value.startswith("/") or "://" in value or "?" in value


def _begins_with_scheme(value: str) -> bool:
    return " " in value[:7] and value[:7].lower().startswith(("bearer ", "basic "))


def _scheme_kept(value: str) -> str:
    """Return `Bearer REDACTED`; a first word that is no known scheme may be the secret itself."""
    scheme, space, _ = value.strip().partition(" ")
    return f"{scheme} {MASK}" if space and scheme.lower() in _SCHEMES else MASK


def _cookies_masked(value: str) -> str:
    """Return `sid=REDACTED; theme=REDACTED`. Attributes of a Set-Cookie go too: joined ones hide cookies in them."""
    return "; ".join(map(_cookie_masked, value.split(";")))


def _cookie_masked(part: str) -> str:
    name, _, value = part.strip().partition("=")
    if value.strip("="):  # without a value, the "name" may be base64 and its padding
        return f"{name}={MASK}"
    return name if name.lower() in _COOKIE_FLAGS else MASK
