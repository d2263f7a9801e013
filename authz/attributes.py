"""One request as the rest of the service sees it, whatever form it arrived in. Pure: no I/O, no clock."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from authz.canonical import twin, unusual

__all__ = ["MAX_PATH_BYTES", "MAX_QUERY_PARAMETERS", "Attributes", "text_of"]

MAX_PATH_BYTES: Final = 16 * 1024
MAX_QUERY_PARAMETERS: Final = 256

_SEPARATORS: Final = re.compile("[&;]")


def text_of(raw: bytes) -> str:
    """Return `raw` as text; bytes that are not UTF-8 become lone surrogates.

    Those equal no text that a policy can write, and the CEL engine refuses them: a condition on them is an error.
    """
    return raw.decode("utf-8", "surrogateescape")


@dataclass
class Attributes:
    """The normalised request, which nobody changes (to be frozen makes each of its fields cost three times as much).

    `target` is Envoy's `:path`, with the query, and empty for CONNECT. `host` is as it was sent. `headers` maps
    lower-case names, without pseudo-headers, to the values of each line. `source_address` is the address of the
    connection's peer, None when it is not an IP connection. `metadata` holds dynamic metadata by namespace.
    """

    method: str
    target: str
    host: str
    # factories leave no attributes in the class, so that a subclass can make these when they are asked for
    scheme: str = field(default_factory=str)
    protocol: str = field(default_factory=str)
    id: str = field(default_factory=str)
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source_address: str | None = field(default_factory=lambda: None)
    principal: str = field(default_factory=str)
    sni: str = field(default_factory=str)
    context_extensions: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def query(self) -> Mapping[str, list[str]]:
        """Parameters by name; only `&` separates them, and names are case-sensitive."""
        return _parameters(self.target.partition("?")[2].split("&"))

    @cached_property
    def query_loose(self) -> Mapping[str, list[str]]:
        """`query` as servers read it that also separate at `;` (HTML 4.01 B.2.2); where there is none, `query` itself."""
        raw = self.target.partition("?")[2]
        return _parameters(_SEPARATORS.split(raw)) if ";" in raw else self.query

    @cached_property
    def query_doubtful(self) -> frozenset[str]:
        """The names whose parameters depend on who reads the query."""
        strict, loose = self.query, self.query_loose
        if strict is loose:
            return frozenset()
        return frozenset(name for name in strict.keys() | loose.keys() if strict.get(name) != loose.get(name))

    @cached_property
    def query_names(self) -> dict[str, str]:
        """The names of parameters as they are spelled, each with what it says."""
        names = (part.partition("=")[0] for part in self.target.partition("?")[2].split("&"))
        return {name: _decoded(name) for name in names if name}

    @cached_property
    def route_policy(self) -> str | None:
        """The policy that Envoy's route names; None: it names none."""
        return self.context_extensions.get("policy")

    @cached_property
    def options(self) -> Sequence[str]:
        """The values of `connection`."""
        return self.lines("connection")

    @property
    def too_large(self) -> bool:
        """Whether the target is more than a policy looks at."""
        query = self.target.partition("?")[2]
        return len(self.target) > MAX_PATH_BYTES or len(_SEPARATORS.findall(query)) >= MAX_QUERY_PARAMETERS

    @property
    def url(self) -> str:
        """The URL that the client asked for."""
        return f"{self.scheme or 'https'}://{self.host}{self.target}"

    def lines(self, name: str) -> Sequence[str]:
        """Return the values of a header, one for each line; none: it is not there."""
        return self.headers.get(name, ())

    def line(self, name: str) -> bytes | None:
        """Return what tells a header that came once from any other, where that costs nothing; else None."""
        del name
        return None

    def header(self, name: str) -> str | None:
        """Return the value of a header that came once; else None."""
        values = self.lines(name)
        return values[0] if len(values) == 1 else None

    @cached_property
    def unusual(self) -> Sequence[str]:
        """The names of headers that are not their own twin."""
        return unusual(self.headers)

    @cached_property
    def twins(self) -> Mapping[str, tuple[str, ...]]:
        """Values by the twin of their header's name: what a server may see that makes variables of names."""
        if not self.unusual:
            return self.headers
        found: dict[str, tuple[str, ...]] = {}
        for name, values in self.headers.items():
            found[twin(name)] = (*found.get(twin(name), ()), *values)
        return found

    @cached_property
    def is_grpc(self) -> bool:
        """Whether the caller reads gRPC statuses rather than HTTP bodies."""
        return any(value.lower().startswith("application/grpc") for value in self.lines("content-type"))

    @property
    def is_navigation(self) -> bool:
        """Whether a browser goes to a page, so that a redirect reaches a person: no script, no API client."""
        accepts_html = any("text/html" in value.lower() for value in self.lines("accept"))
        script = "x-requested-with" in self.headers or self.header("sec-fetch-mode") not in {None, "navigate"}
        return self.method == "GET" and accepts_html and not script and not self.is_grpc


def _parameters(parts: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in parts:
        if part:
            name, _, value = part.partition("=")
            found.setdefault(_decoded(name), []).append(_decoded(value))
    return found


def _decoded(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    return text_of(unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape")))
