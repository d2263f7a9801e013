"""One access-log entry as Envoy told it, whatever the wire looked like.

An empty string, an empty mapping and None mean that Envoy said nothing; a number is one that it said. Times are
nanoseconds, sizes bytes. Pure: no I/O, no clock.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

__all__ = [
    "Address",
    "Connection",
    "Entry",
    "Http",
    "Kind",
    "Message",
    "Origin",
    "Request",
    "Response",
    "Timing",
    "Tls",
    "Upstream",
    "WireBytes",
]

Kind = Literal["http", "tcp"]


class Address(msgspec.Struct, frozen=True):
    """One end of a connection: an IP address with its port, the path of a Unix socket, or `internal:LISTENER`."""

    host: str
    port: int | None = None
    transport: Literal["tcp", "udp", "unix", "internal"] = "tcp"


class Tls(msgspec.Struct, frozen=True):
    """The TLS of the downstream connection. `cipher_suite` is IANA's number, `version` is `1.3` and the like."""

    version: str = ""
    cipher_suite: int | None = None
    sni: str = ""
    ja3: str = ""


class Timing(msgspec.Struct, frozen=True):
    """When each part of the exchange was done, in nanoseconds since the start of the entry; None: it never was."""

    request_rx_ns: int | None = None
    upstream_first_tx_ns: int | None = None
    upstream_last_tx_ns: int | None = None
    upstream_first_rx_ns: int | None = None
    upstream_last_rx_ns: int | None = None
    downstream_first_tx_ns: int | None = None
    downstream_last_tx_ns: int | None = None


class Upstream(msgspec.Struct, frozen=True):
    """Where the request went. `attempts` is 0 when nothing was sent, 1 when nothing was repeated."""

    cluster: str = ""
    address: Address | None = None
    local_address: Address | None = None
    attempts: int = 0
    failure_reason: str = ""


class WireBytes(msgspec.Struct, frozen=True):
    """Bytes on the wire, framing and encryption's overhead included."""

    down_wire_rx: int = 0
    down_wire_tx: int = 0
    up_wire_tx: int = 0
    up_wire_rx: int = 0


class Request(msgspec.Struct, frozen=True):
    """The request. `method` is empty for one that Envoy's enum does not know. `headers` are the captured ones."""

    method: str = ""
    scheme: str = ""
    authority: str = ""
    path: str = ""
    original_path: str = ""
    user_agent: str = ""
    referer: str = ""
    forwarded_for: str = ""
    request_id: str = ""
    headers: Mapping[str, str] = {}
    headers_bytes: int = 0
    body_bytes: int = 0
    up_headers_tx: int = 0
    down_headers_rx: int = 0


class Response(msgspec.Struct, frozen=True):
    """The response. `status` is None when none was begun."""

    status: int | None = None
    headers: Mapping[str, str] = {}
    trailers: Mapping[str, str] = {}
    details: str = ""
    headers_bytes: int = 0
    body_bytes: int = 0
    up_headers_rx: int = 0
    down_headers_tx: int = 0


class Http(msgspec.Struct, frozen=True):
    """What only an HTTP entry has. `version` is `1.0`, `1.1`, `2` or `3`."""

    version: str = ""
    request: Request | None = None
    response: Response | None = None


class Connection(msgspec.Struct, frozen=True):
    """What only a TCP entry has: payload bytes, seen from Envoy."""

    received_bytes: int = 0
    sent_bytes: int = 0


class Entry(msgspec.Struct, frozen=True):
    """One entry. `http` is there for HTTP only, `connection` for TCP only.

    `start_ns` counts from the Unix epoch. `metadata` holds the namespaces that were asked for. `repaired` says that
    a text held invalid UTF-8, now U+FFFD.
    """

    kind: Kind
    access_log_type: str = ""
    final: bool = False
    start_ns: int | None = None
    duration_ns: int | None = None
    sample_rate: float = 0.0
    client: Address | None = None
    peer: Address | None = None
    local: Address | None = None
    tls: Tls | None = None
    timing: Timing = Timing()
    upstream: Upstream = Upstream()
    wire_bytes: WireBytes = WireBytes()
    response_flags: tuple[str, ...] = ()
    route_name: str = ""
    stream_id: str = ""
    downstream_failure_reason: str = ""
    termination_details: str = ""
    metadata: Mapping[str, Mapping[str, Any]] = {}
    custom_tags: Mapping[str, str] = {}
    http: Http | None = None
    connection: Connection | None = None
    repaired: bool = False


class Origin(msgspec.Struct, frozen=True):
    """Who writes: the Envoy as its bootstrap names it, and the name of the log. Nothing of it is authenticated."""

    node_id: str = ""
    cluster: str = ""
    region: str = ""
    zone: str = ""
    sub_zone: str = ""
    version: str = ""
    log_name: str = ""


class Message(msgspec.Struct, frozen=True):
    """One message of a stream. `origin` is there in the first one only.

    `entries` can be walked once; None stands for an entry that nothing could be made of, so that positions hold.
    """

    origin: Origin | None
    entries: Iterator[Entry | None]
