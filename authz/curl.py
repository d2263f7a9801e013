"""curl's words as the request that curl would send (curl(1), 8.x). Pure: no I/O, no clock.

Words that change nothing of the first request are passed over, those that do and cannot be honoured here (files,
proxies, client certificates) are named, and unknown ones are refused.
"""

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote_plus

from authz.attributes import Attributes
from authz.curl_options import (
    DATA,
    ELSEWHERE_FLAGS,
    ELSEWHERE_VALUED,
    FLAGS,
    IDLE_FLAGS,
    IDLE_VALUED,
    SHORT,
    TAKING,
)
from authz.requests import LOOPBACK, NotARequest, of_line, split_url

__all__ = ["Curl", "of_curl"]

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9.#-]")  # behind a name may stand a credential: `--header=...`
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")  # RFC 3986 3.1


@dataclass(frozen=True, slots=True)
class Curl:
    """What curl would send, and the words that could not be honoured, without their values."""

    request: Attributes
    not_honoured: tuple[str, ...] = ()


def of_curl(words: Sequence[str], client_ip: str = LOOPBACK) -> Curl:
    """Return the request of the words after `curl`.

    Raises:
        NotARequest: Operator error: a word is unknown or lacks its value, or there is not one URL.
    """
    read = _Words()
    for name, value in _options(words):
        read.take(name, value)
    return read.curl(client_ip)


def _options(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each option by its long name with its value; a URL is the value of `url`."""
    rest = iter(words)
    for word in rest:
        if word.startswith("--") and len(word) > 2:
            yield _long(word[2:], rest)
        elif word.startswith("-") and len(word) > 1:
            yield from _cluster(word[1:], rest)
        else:
            yield "url", word


def _long(name: str, rest: Iterator[str]) -> tuple[str, str | None]:
    if name in TAKING:
        return name, _next(f"--{name}", rest)
    return name, None


def _cluster(letters: str, rest: Iterator[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the options of `-sXPOST`: the first that takes a value takes what is left, else the next word."""
    for at, letter in enumerate(letters):
        name = SHORT.get(letter, f"-{letter}")
        if name in TAKING:
            yield name, letters[at + 1 :] or _next(f"-{letter}", rest)
            return
        yield name, None


def _next(name: str, rest: Iterator[str]) -> str:
    word = next(rest, None)
    if word is None:
        raise NotARequest(f"curl: {name} needs a value")
    return word


@dataclass(slots=True)
class _Words:
    """The options so far."""

    urls: list[str] = field(default_factory=list)
    values: dict[str, str] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    headers: list[str] = field(default_factory=list)
    cookies: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    query: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    not_honoured: list[str] = field(default_factory=list)

    def take(self, name: str, value: str | None) -> None:
        """Take one option."""
        if value is None:
            self._flag(name)
        elif name in IDLE_VALUED:
            return
        elif name in ELSEWHERE_VALUED:
            self.not_honoured.append(f"--{name}")
        elif name in DATA:
            self.kinds.add("json" if name == "json" else "data")
            self._add_data(name, value)
        elif name in {"form", "form-string"}:
            self.kinds.add("form")
        else:
            self._add(name, value)

    def _flag(self, name: str) -> None:
        """Take an option without a value; `no-` before its name takes it back."""
        plain = name.removeprefix("no-")
        if name in FLAGS:
            self.flags.add(name)
        elif plain in FLAGS:
            self.flags.discard(plain)
        elif name in ELSEWHERE_FLAGS:
            self.not_honoured.append(f"--{name}")
        elif plain not in IDLE_FLAGS | ELSEWHERE_FLAGS:
            told = _NO_NAME.split(name if name.startswith("-") else f"--{name}")[0]
            why = "takes its value as the next word" if told[2:] in TAKING else "is not known here"
            raise NotARequest(f"curl: {told} {why}")

    def _add(self, name: str, value: str) -> None:
        lists = {"url": self.urls, "url-query": self.query, "header": self.headers, "cookie": self.cookies}
        from_file = (name == "header" and value.startswith("@")) or (name == "cookie" and "=" not in value)
        if from_file:
            self.not_honoured.append(f"--{name} with a file")
        elif name == "url-query":
            self.query.append(value[1:] if value.startswith("+") else _encoded(value))
        elif name in lists:
            lists[name].append(value)
        else:
            self.values[name] = value

    def _add_data(self, name: str, value: str) -> None:
        plain, _, file = value.partition("@")
        encoded = name == "data-urlencode"
        from_file = "=" not in plain and bool(file) if encoded else value[:1] == "@" and name != "data-raw"
        if from_file:
            self.not_honoured.append(f"--{name} with a file")
        else:
            self.data.append(_encoded(value) if encoded else value)

    @property
    def method(self) -> str:
        """The method that curl takes."""
        implied = "POST" if self.kinds else "PUT" if "upload-file" in self.values else "GET"
        if self.flags & {"get", "head"}:
            implied = "HEAD" if "head" in self.flags else "GET"
        return self.values.get("request", implied)

    def curl(self, client_ip: str) -> Curl:
        """Return the request."""
        if len(self.urls) != 1:
            raise NotARequest(f"curl: expected one URL, got {len(self.urls)}")
        url = self._url(self.urls[0])
        scheme, authority, target = split_url(url)
        user, at, host = authority.rpartition("@")
        if at:
            self.values.setdefault("user", user)
        host = host.removesuffix(":443" if scheme == "https" else ":80")
        target = self.values.get("request-target", target)
        request = of_line(self.method, f"{scheme}://{host}{target}", self._lines(), client_ip)
        two = scheme == "https" and not self.flags & {"http1.0", "http1.1"}
        two = two or bool(self.flags & {"http2", "http2-prior-knowledge"})
        protocol = "HTTP/2" if two else "HTTP/1.0" if "http1.0" in self.flags else "HTTP/1.1"
        return Curl(_spoken(request, protocol), tuple(dict.fromkeys(self.not_honoured)))

    def _url(self, url: str) -> str:
        """Return the URL as curl makes a request of it: without fragment, with a scheme, its dots resolved."""
        if "globoff" not in self.flags and re.search(r"[{}]|\[(?![0-9a-fA-F:.]+\])", url):
            self.not_honoured.append("globbing in the URL (--globoff takes it as it is)")
        url = url.partition("#")[0]
        scheme, authority, target = split_url(url if _SCHEME.match(url) else f"http://{url}")
        path, mark, query = target.partition("?")
        if "path-as-is" not in self.flags:
            path = _without_dots(path)
        added = [*self.query, *(self.data if "get" in self.flags else ())]
        query = "&".join(part for part in (query, *added) if part)
        return f"{scheme}://{authority}{path}{'?' if mark or added else ''}{query}"

    def _lines(self) -> list[str]:
        """Return curl's own headers where the words have none of that name, and those of the words."""
        own = {"user-agent": self.values.get("user-agent", "curl/8"), "accept": "*/*", **self._about_body()}
        if "referer" in self.values:
            own["referer"] = self.values["referer"]
        if "compressed" in self.flags:
            own["accept-encoding"] = "deflate, gzip"
        if "range" in self.values:
            own["range"] = f"bytes={self.values['range']}"
        if "user" in self.values:
            user = self.values["user"] if ":" in self.values["user"] else f"{self.values['user']}:"
            own["authorization"] = "Basic " + b64encode(user.encode("utf-8", "surrogateescape")).decode()
        if "oauth2-bearer" in self.values:
            own["authorization"] = f"Bearer {self.values['oauth2-bearer']}"
        named = {re.split("[:;]", line)[0].strip().lower() for line in self.headers}
        lines = [f"{name}: {value}" for name, value in own.items() if name not in named and value]
        if self.cookies and "cookie" not in named:
            lines.append(f"cookie: {';'.join(self.cookies)}")
        return [*lines, *_written(self.headers)]

    def _about_body(self) -> dict[str, str]:
        if "get" in self.flags or not self.kinds:
            return {}
        if "form" in self.kinds:
            return {"content-type": "multipart/form-data; boundary=" + "-" * 24 + "0" * 22}
        length = len(("" if "json" in self.kinds else "&").join(self.data).encode("utf-8", "surrogateescape"))
        known = (
            {}
            if any("with a file" in each for each in self.not_honoured)
            else {"content-length": str(length)}
        )
        if "json" in self.kinds:
            return {"content-type": "application/json", "accept": "application/json", **known}
        return {"content-type": "application/x-www-form-urlencoded", **known}


def _written(headers: Sequence[str]) -> Iterator[str]:
    """Yield the headers of the words: `name;` is an empty one, `name:` only takes curl's own away."""
    for line in headers:
        name, colon, value = line.partition(":")
        if colon and value.strip(" \t"):
            yield line
        elif not colon and line.rstrip().endswith(";"):
            yield f"{name.rstrip()[:-1]}:"
        elif not colon:
            raise NotARequest("curl: --header: expected NAME: VALUE")


def _encoded(value: str) -> str:
    """Return what `--data-urlencode` makes of `name=value`, `=value` or `value`."""
    name, sign, text = value.partition("=")
    encoded = quote_plus(text if sign else value, errors="surrogateescape")
    return f"{name}={encoded}" if sign and name else encoded


def _without_dots(path: str) -> str:
    """Return the path without dot segments (RFC 3986 5.2.4), as curl sends it unless `--path-as-is`."""
    kept: list[str] = []
    parts = path.split("/")[1:]
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        if part == "..":
            kept = kept[:-1]
        elif part != ".":
            kept.append(part)
        if part in {".", ".."} and last:
            kept.append("")
    return "/" + "/".join(kept)


def _spoken(request: Attributes, protocol: str) -> Attributes:
    return Attributes(
        method=request.method,
        target=request.target,
        host=request.host,
        scheme=request.scheme,
        protocol=protocol,
        headers=request.headers,
        source_address=request.source_address,
    )
