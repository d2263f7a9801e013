"""Other spellings of a request that a backend could take for the same one, by class.

Each class is a known way around a decision (docs/authz-tools.md names the CVEs): the proxy decides on one spelling, the
backend acts on another. Where the credential stands is a class of its own, in `authz.placements`.
Pure: no I/O, no clock.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from authz.attributes import Attributes
from authz.callers import changed
from authz.spoken import Known

__all__ = ["CLASSES", "Spelled", "header_added", "header_set"]

OVERRIDES: Final = ("x-http-method-override", "x-http-method", "x-method-override")
_PATH_HEADERS: Final = ("x-original-url", "x-rewrite-url", "x-forwarded-path", "x-forwarded-uri")
_ROUTED_BY: Final = ("x-original-url", "x-rewrite-url")
"""Those by which servers route instead of by the path (CVE-2018-14773)."""
_HOST_HEADERS: Final = ("x-forwarded-host", "x-original-host", "x-host")
_METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST")
_CANARY: Final = "abuse"
_OTHER_HOST: Final = "other.invalid"
_MAX: Final = 8
"""The most names and values of a policy that are tried, of each sort: large policies repeat themselves."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """A spelling: how to say what is different, and the request.

    `carrier` is the header that says what is really asked for, if one does: nobody is fooled where no upstream gets it.
    """

    what: str
    request: Attributes
    carrier: str = ""


def header_set(request: Attributes, name: str, *lines: str) -> Attributes:
    """Return the request with these lines of a header and no others; none: without it."""
    headers = {each: values for each, values in request.headers.items() if each != name}
    return changed(request, headers=headers | ({name: lines} if lines else {}))


def header_added(request: Attributes, name: str, line: str) -> Attributes:
    """Return the request with one more line of a header."""
    return header_set(request, name, *request.headers.get(name, ()), line)


# -- path -------------------------------------------------------------------------------------------------------------


def paths(request: Attributes, known: Known) -> Iterator[Spelled]:
    """Yield the path as servers read it that decode, merge, strip or fold what a proxy does not, or the other way round."""
    path, mark, query = request.target.partition("?")
    if not path.startswith("/"):
        return
    for other in dict.fromkeys(_paths(path, known)):
        if other != path:
            yield Spelled(f"the target `{other}{mark}{query}`", changed(request, target=other + mark + query))
    for target in _whole_targets(request, path, known):
        yield Spelled(f"the target `{target}`", changed(request, target=target))
    for name in _PATH_HEADERS:
        for prefix in known.prefixes[:2]:
            yield Spelled(f"`{name}: {prefix}`", header_set(request, name, prefix))
    for target in known.targets:
        if target != request.target:
            yield from _carried(
                f"the target `{target}`", changed(request, target=target), _ROUTED_BY, request.target
            )


def _carried(what: str, moved: Attributes, names: Iterable[str], value: str) -> Iterator[Spelled]:
    """Yield the request that asks for something that is allowed, and in a header for what is meant."""
    for name in names:
        for each in _as_cgi(name):
            yield Spelled(f"{what} with `{each}: {value}`", header_set(moved, each, value), each)


def _as_cgi(name: str) -> Iterator[str]:
    """Yield a header's name, and another one that CGI and its heirs read as the same."""
    yield from dict.fromkeys((name, name.replace("-", "_")))


def _paths(path: str, known: Known) -> Iterator[str]:
    head, _, tail = path.rpartition("/")
    yield from (
        f"/{path}",
        f"/.{path}",
        f"{path}/.",
        f"/x/..{path}",
        f"{path}/x/..",
        f"{head}//{tail}",
        f"{head}/./{tail}",
    )
    if tail:
        yield f"{path}/"
    elif known.by_rule:  # without a rule, it may be the odd spelling of what is allowed
        yield path.rstrip("/") or "/"
    for step in ("..", "..;", "%2e%2e", "..%2f", "..%2F", "..%5c", "..\\", "%252e%252e"):
        for prefix in known.prefixes[:_MAX]:
            yield f"{prefix}/{step}{path}"
    for slash in ("%2f", "%2F", "%5c", "%5C", "\\", "%252f", "%c0%af"):
        yield f"{head}{slash}{tail}"
        yield f"/{slash}{path[1:]}"
    if tail:
        yield from (f"{head}/%{ord(tail[0]):02x}{tail[1:]}", f"{head}/%25{ord(tail[0]):02x}{tail[1:]}")
        yield f"{head}/%{ord(tail[0]):02X}{tail[1:]}"
    yield from (
        path + end for end in (";", ";x=1", ";/", "#", "#x", "%23", "%3f", "%3b", "%00", "%00x", "%0a", "%09")
    )
    yield re.sub(r"(?<=.)/", ";x=1/", path)
    yield from (f"/;x=1{path}", f"{head}/;x=1/{tail}")
    yield _literals(path, known.literals, str.upper)
    yield _literals(path, known.literals, str.capitalize)


def _literals(path: str, literals: frozenset[str], change: Callable[[str], str]) -> str:
    """Return the path with its fixed segments changed: names of things are as case-sensitive as their owners say."""
    return "/".join(change(part) if part in literals else part for part in path.split("/"))


def _whole_targets(request: Attributes, path: str, known: Known) -> Iterator[str]:
    target, scheme = request.target, request.scheme or "https"
    yield from (
        target[1:],
        f"{scheme}://{request.host}{target}",
        f"//{request.host}{path}",
        f"{scheme}:{target}",
    )
    joint = "&" if "?" in target else "?"
    for prefix in known.prefixes[:2]:
        yield from (
            f"{target}{joint}next={prefix}",
            f"{path}#{prefix}",
            f"{path}%3f{prefix}",
            f"{path};{prefix}",
        )


# -- host and method ---------------------------------------------------------------------------------------------------


def hosts(request: Attributes, known: Known) -> Iterator[Spelled]:
    """Yield the host as servers read it that fold case, cut off ports and dots, or take it from elsewhere."""
    host, port = request.host, "80" if request.scheme == "http" else "443"
    others = (*known.hosts[:2], _OTHER_HOST)
    bare = ":" not in host
    first, dot, rest = host.partition(".")
    spelled = [
        host.upper(),
        host.title(),
        first.upper() + dot + rest,
        *([f"{host}.", f"{host}:{port}", f"{host}.:{port}"] if bare else []),
    ]
    spelled += [
        f"{host} ",
        f"{host}\t",
        f"{host}\0",
        f"{host}%00",
        f"{host}:",
        f"{host}/",
        f"{host}#",
        f"x@{host}",
    ]
    for other in others:
        spelled += [
            f"{host}@{other}",
            f"{other}@{host}",
            f"{host},{other}",
            f"{other},{host}",
            f"{host}#{other}",
        ]
    for text in spelled:
        if text != host:
            yield Spelled(f"the host {text!a}", changed(request, host=text))
    for other in others:
        for name in ("host", *_HOST_HEADERS):
            yield Spelled(f"`{name}: {other}`", header_set(request, name, other))
        yield Spelled(f"`forwarded: host={other}`", header_set(request, "forwarded", f"host={other}"))
    for other in known.hosts[:_MAX]:
        what, moved = f"the host {other!a}", changed(request, host=other)
        yield from _carried(what, moved, _HOST_HEADERS, host)
        yield from _carried(what, moved, ("forwarded",), f"host={host}")


def methods(request: Attributes, known: Known) -> Iterator[Spelled]:
    """Yield the method as frameworks take it from a header or a parameter, and in other letters."""
    own, joint = request.method, "&" if "?" in request.target else "?"
    if not own or own == "CONNECT":
        return
    yield Spelled(f"the method `{own.lower()}`", changed(request, method=own.lower()))
    names = [each for name in OVERRIDES for each in _as_cgi(name)]
    for method in dict.fromkeys((*_METHODS, *known.methods[:_MAX])):
        if method != own:
            for name in names:
                yield Spelled(f"`{name}: {method}`", header_set(request, name, method))
            target = f"{request.target}{joint}_method={method}"
            yield Spelled(f"`_method={method}`", changed(request, target=target))
    if own in {"POST", "HEAD", "OPTIONS", "TRACE"}:  # to be asked in this way does nothing
        return
    # what frameworks honour carries POST (Rack, Symfony, Laravel, Spring, method-override)
    post = changed(request, method="POST")
    yield from _carried("POST", post, OVERRIDES, own)
    yield Spelled(f"POST with `_method={own}`", changed(post, target=f"{request.target}{joint}_method={own}"))


# -- headers and query -------------------------------------------------------------------------------------------------


def duplicates(request: Attributes, known: Known) -> Iterator[Spelled]:
    """Yield each header twice with another value, joined, and under the names that servers read as its own."""
    for name, lines in request.headers.items():
        if name in known.places or name in {"cookie", "connection"}:
            continue
        value = lines[0]
        for other in _others(value, (known.headers or {}).get(name, ())):
            for two in ((value, other), (other, value), (f"{value},{other}",), (f"{other}, {value}",)):
                told = " and ".join(f"`{name}: {line}`" for line in two)
                yield Spelled(told, header_set(request, name, *two))
            for twin in _twins(name):
                yield Spelled(f"`{twin}: {other}` beside `{name}`", header_set(request, twin, other))
        for twin in _twins(name):
            moved = header_set(request, name)
            yield Spelled(f"`{twin}: {value}` in the place of `{name}`", header_set(moved, twin, *lines))


def _twins(name: str) -> Iterator[str]:
    if "-" in name:
        yield from (name.replace("-", "_"), name.replace("-", "."), name.replace("-", "_", 1))


def _others(value: str, wanted: Iterable[str]) -> list[str]:
    """Return other values: what the policy looks for, and one that nobody looks for."""
    filled = (
        f"{'x' if each.startswith('*') else ''}{each.strip('*')}{'x' if each.endswith('*') else ''}"
        for each in wanted
    )
    return [each for each in dict.fromkeys((*list(dict.fromkeys(filled))[:_MAX], _CANARY)) if each != value]


def parameters(request: Attributes, known: Known) -> Iterator[Spelled]:
    """Yield each query parameter twice with another value, in both orders, and with its name encoded."""
    path, mark, query = request.target.partition("?")
    pairs = [part.partition("=") for part in query.split("&") if part] if mark else []
    for name, _, value in pairs:
        for other in _others(value, (known.query or {}).get(name, ())):
            encoded = f"%{ord(name[0]):02x}{name[1:]}" if name[:1].isalpha() else name
            for text in (f"{query}&{name}={other}", f"{name}={other}&{query}", f"{query}&{encoded}={other}"):
                yield Spelled(f"the target `{path}?{text}`", changed(request, target=f"{path}?{text}"))


def trusted(request: Attributes, known: Known) -> Iterator[Spelled]:
    """Yield each header that the upstream believes, as if the client could speak for it."""
    for name in known.protected:
        for value in _others("", (known.headers or {}).get(name, ())):
            yield Spelled(f"`{name}: {value}`", header_set(request, name, value))
            yield Spelled(f"`{name}: {value}` twice", header_set(request, name, value, value))
            for twin in _twins(name):
                yield Spelled(f"`{twin}: {value}`", header_set(request, twin, value))
                both = header_set(header_set(request, name, value), twin, value)
                yield Spelled(f"`{name}: {value}` and `{twin}: {value}`", both)


def connection(request: Attributes, known: Known) -> Iterator[Spelled]:
    """Yield each such header named by `connection`, so that the next hop would strip it (RFC 9110 7.6.1)."""
    for name in known.protected:
        for line in (name, f"close, {name}", name.title()):
            yield Spelled(f"`connection: {line}`", header_set(request, "connection", line))
        yield Spelled(
            f"`connection: close` and `connection: {name}`", header_set(request, "connection", "close", name)
        )


CLASSES: Final[Mapping[str, Callable[[Attributes, Known], Iterator[Spelled]]]] = {
    "path spelling": paths,
    "host spelling": hosts,
    "header duplication": duplicates,
    "query duplication": parameters,
    "trusted headers": trusted,
    "connection header": connection,
    "method override": methods,
}
"""The classes that need nothing but the request, by name."""
