"""An entry to the fields of its record: names of OpenTelemetry's semantic conventions, `envoy.*` for what they lack.

Absent is neither 0 nor empty: what Envoy did not say is left out. Times are RFC 3339 with nine digits, durations
integer nanoseconds, sizes numbers; fields stand in a fixed order, those of maps sorted. Pure: no I/O, no clock.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from accesslog.entry import Address, Entry, Http, Origin, Request, Response, Timing, Tls, Upstream
from accesslog.names import CIPHERS, ERROR_FLAGS, KNOWN_METHODS
from accesslog.redact import Found, Redactor
from accesslog.trace import trace_context
from edgekeeper.timestamps import rfc3339

__all__ = ["SCHEMA", "record", "record_id"]

SCHEMA: Final = "edgekeeper.accesslog/1"

_ALWAYS_PRESENT: Final = frozenset({int, bool, float})
_NO_UPSTREAM: Final = Upstream()
_NO_TIMING: Final = Timing()
_NO_REQUEST: Final = Request()
_NO_RESPONSE: Final = Response()
_HTTP_FILTERS: Final = "envoy.filters.http."


def record_id(stream: str, message: int, entry: int) -> str:
    """Return the name of a record: equal for every delivery of the same entry, different for any two entries.

    `stream` is unique to one stream of one process; `message` and `entry` are positions from 0.
    """
    return f"{stream}-{message:08x}-{entry:04x}"


def record(
    entry: Entry, origin: Origin, id_: str, observed_us: int, redactor: Redactor, found: Found
) -> dict[str, Any]:
    """Return the record of an entry; what is masked in it is noted in `found`.

    `observed_us` is when its message arrived, in microseconds since the epoch.
    """
    status = entry.http.response.status if entry.http and entry.http.response else None
    error = _error_type(status, entry.response_flags)
    failed = error.isdigit() or error in ERROR_FLAGS
    fields = {
        "schema": SCHEMA,
        "record_id": id_,
        "event.name": f"{entry.kind}.access",
        "timestamp": rfc3339(entry.start_ns, 9) if entry.start_ns is not None else None,
        "observed_timestamp": rfc3339(observed_us * 1000, 9),
        "severity_text": "ERROR" if failed else "INFO",
        **(_http(entry.http, error, redactor, found) if entry.http else {"error.type": error}),
        **_network(entry, redactor),
        **_tls(entry.tls),
        **(trace_context(entry.http.request.headers) if entry.http and entry.http.request else {}),
        **_envoy(entry, redactor, found),
        **_attached(entry, redactor, found),
        "envoy.node": _node(origin),
        "envoy.log_name": origin.log_name,
        "sample_rate": entry.sample_rate if 0 < entry.sample_rate <= 1 else None,
        "repaired": entry.repaired or None,
    }
    return _present(fields)


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is absent; 0 and False are values."""
    return {name: value for name, value in values.items() if value or value.__class__ in _ALWAYS_PRESENT}


def _node(origin: Origin) -> dict[str, Any]:
    return _present(
        {
            "id": origin.node_id,
            "cluster": origin.cluster,
            "region": origin.region,
            "zone": origin.zone,
            "sub_zone": origin.sub_zone,
            "version": origin.version,
        }
    )


def _error_type(status: int | None, flags: tuple[str, ...]) -> str:
    """Return the status of a server's error, else the flag that says what went wrong, else nothing."""
    if status is not None and status >= 500:
        return str(status)
    serious = next((flag for flag in flags if flag in ERROR_FLAGS), "")
    return serious or (flags[0] if flags and status is None else "")


def _http(http: Http, error: str, redactor: Redactor, found: Found) -> dict[str, Any]:
    request, response = http.request or _NO_REQUEST, http.response or _NO_RESPONSE
    method, original = _method(request)
    path, query = redactor.target(request.original_path or request.path, found)
    host, port = _authority(request.authority, found)
    return {
        "http.request.method": method,
        "http.request.method_original": original,
        "url.scheme": request.scheme,
        "url.path": path,
        "url.query": query,
        "server.address": host,
        "server.port": port,
        "http.response.status_code": response.status,
        "error.type": error,
        "network.protocol.name": "http" if http.version else None,
        "network.protocol.version": http.version,
        "user_agent.original": request.user_agent,
        "http.request.body.size": request.body_bytes if http.request else None,
        "http.response.body.size": response.body_bytes if http.response else None,
        **_headers("http.request.header", _request_headers(request), redactor, found),
        **_headers("http.response.header", response.headers, redactor, found),
        **_headers("http.response.trailer", response.trailers, redactor, found),
    }


def _method(request: Request) -> tuple[str, str]:
    """Return method and, for one that is not of the known ones, the original of it, if it was captured.

    An entry without method and path is a request that Envoy could not read (`http1.codec_error`).
    """
    captured = request.headers.get(":method", "")
    if request.method:
        return request.method, ""
    if captured in KNOWN_METHODS:
        return captured, ""
    return ("_OTHER", captured) if captured or request.path else ("", "")


def _authority(authority: str, found: Found) -> tuple[str, int | None]:
    if "@" in authority:
        found["server.address.userinfo"] = "query"
        authority = authority.rpartition("@")[2]
    host, colon, port = authority.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 5 and (":" not in host or "]" in host):
        return host.strip("[]"), int(port)
    return authority.strip("[]"), None


def _request_headers(request: Request) -> dict[str, str]:
    named = {"referer": request.referer, "x-forwarded-for": request.forwarded_for}
    return {name: value for name, value in named.items() if value} | dict(request.headers)


def _headers(
    prefix: str, headers: Mapping[str, str], redactor: Redactor, found: Found
) -> dict[str, list[str]]:
    """Return the captured headers; pseudo-headers have fields of their own."""
    lowered = sorted((name.lower(), value) for name, value in headers.items() if not name.startswith(":"))
    return {
        f"{prefix}.{name}": [redactor.header(name, value, f"{prefix}.{name}", found)]
        for name, value in lowered
    }


def _network(entry: Entry, redactor: Redactor) -> dict[str, Any]:
    connection = entry.connection
    return {
        "network.transport": _transport(entry),
        **_end("client", entry.client, redactor),
        **_end("network.peer", entry.peer, redactor),
        **_end("network.local", entry.local, None),
        "network.io.receive": connection.received_bytes if connection else None,
        "network.io.transmit": connection.sent_bytes if connection else None,
    }


def _transport(entry: Entry) -> str | None:
    if entry.http is not None and entry.http.version == "3":
        return "quic"
    end = entry.peer or entry.client
    return None if end is None or end.transport == "internal" else end.transport


def _end(prefix: str, address: Address | None, redactor: Redactor | None) -> dict[str, Any]:
    if address is None:
        return {}
    host = redactor.address(address.host) if redactor is not None else address.host
    return {f"{prefix}.address": host, f"{prefix}.port": address.port}


def _tls(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    cipher = tls.cipher_suite
    return {
        "tls.protocol.name": "tls" if tls.version else None,
        "tls.protocol.version": tls.version,
        "tls.cipher": CIPHERS.get(cipher, f"0x{cipher:04X}") if cipher is not None else None,
        "tls.client.ja3": tls.ja3,
        "envoy.tls.sni": tls.sni,
    }


def _envoy(entry: Entry, redactor: Redactor, found: Found) -> dict[str, Any]:
    http = entry.http
    request = http.request if http else None
    response = http.response if http else None
    template = entry.route_name.startswith("/")
    rewritten = request.path if request and request.original_path else ""
    return {
        "http.route": entry.route_name if template else None,
        "envoy.route_name": None if template else entry.route_name,
        "envoy.path": redactor.url(rewritten, "envoy.path", found),
        "envoy.request_id": request.request_id if request else None,
        "envoy.stream_id": entry.stream_id,
        "envoy.access_log_type": entry.access_log_type,
        "envoy.final": entry.final,
        "envoy.duration_ns": entry.duration_ns,
        "envoy.timing": _timing(entry.timing),
        "envoy.upstream": _upstream(entry),
        "envoy.response_flags": list(entry.response_flags),
        "envoy.response_code_details": response.details if response else None,
        "envoy.connection_termination_details": entry.termination_details,
        "envoy.downstream_transport_failure_reason": entry.downstream_failure_reason,
        "envoy.bytes": _bytes(entry),
    }


def _attached(entry: Entry, redactor: Redactor, found: Found) -> dict[str, Any]:
    """Return what filters and the operator attached: metadata of the namespaces that were asked for, custom tags."""
    return {
        "envoy.metadata": {
            name.removeprefix(_HTTP_FILTERS): redactor.value(
                "", dict(values), f"envoy.metadata.{name}", found
            )
            for name, values in entry.metadata.items()
        },
        "envoy.custom_tags": {
            tag: redactor.value(tag, value, f"envoy.custom_tags.{tag}", found)
            for tag, value in sorted(entry.custom_tags.items())
        },
    }


def _timing(timing: Timing) -> dict[str, int]:
    return _present(msgspec.structs.asdict(timing)) if timing != _NO_TIMING else {}


def _upstream(entry: Entry) -> dict[str, Any]:
    """Return where it went; 0 attempts is said of a known upstream only."""
    if entry.upstream == _NO_UPSTREAM:
        return {}
    up, local = entry.upstream, entry.upstream.local_address
    return _present(
        {
            "cluster": up.cluster,
            "address": up.address.host if up.address else None,
            "port": up.address.port if up.address else None,
            "local_address": local.host if local else None,
            "local_port": local.port if local else None,
            "attempts": up.attempts,
            "failure_reason": up.failure_reason,
        }
    )


def _bytes(entry: Entry) -> dict[str, int]:
    """Return all sizes of the exchange, or none where Envoy measured nothing."""
    sizes = msgspec.structs.asdict(entry.wire_bytes)
    if entry.http is not None:
        request, response = entry.http.request or _NO_REQUEST, entry.http.response or _NO_RESPONSE
        sizes |= {
            "req_headers": request.headers_bytes,
            "resp_headers": response.headers_bytes,
            "down_headers_rx": request.down_headers_rx,
            "down_headers_tx": response.down_headers_tx,
            "up_headers_tx": request.up_headers_tx,
            "up_headers_rx": response.up_headers_rx,
        }
    return sizes if any(sizes.values()) else {}
