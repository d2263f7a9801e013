"""The options of a gRPC server (`channel_arg_names.h` of grpc); docs/design.md says why each. No I/O."""

from typing import Final

__all__ = ["MAX_STREAM_BYTES", "MAX_UNARY_BYTES", "options", "waiting"]

MAX_UNARY_BYTES: Final = 4 * 1024 * 1024
MAX_STREAM_BYTES: Final = 16 * 1024 * 1024 + 256 * 1024


def waiting(max_in_flight: int) -> int:
    """Return how many calls may wait to be taken from the core's queue, which no deadline shortens.

    A call costs grpc.aio and a handler about a third of a millisecond; 128 of them are 45 ms, of the 200 ms that Envoy
    gives. A full queue of the core's own size, 1,000 to 3,000, makes every call in it late, for good.
    """
    return max(32, max_in_flight // 8)


def options(*, streams: bool, max_in_flight: int, reuse_port: bool) -> list[tuple[str, int]]:
    """Return the channel arguments of a server; `streams`: it has methods that take streams."""
    chosen = {
        "grpc.so_reuseport": int(reuse_port),
        "grpc.max_receive_message_length": MAX_STREAM_BYTES if streams else MAX_UNARY_BYTES,
        "grpc.max_concurrent_streams": 1024,
        "grpc.http2.min_ping_interval_without_data_ms": 5_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.server_handshake_timeout_ms": 5_000,
        "grpc.max_metadata_size": 32_768,
    }
    # a stalled reader costs the peer and us 64 KiB, not 4 MiB; a stream ends at a message, never by age
    if streams:
        chosen |= {"grpc.http2.bdp_probe": 0, "grpc.http2.lookahead_bytes": 65_536}
    else:
        chosen |= {
            "grpc.max_connection_age_ms": 900_000,
            "grpc.max_connection_age_grace_ms": 30_000,
            "grpc.server.max_pending_requests": waiting(max_in_flight),
            "grpc.server.max_pending_requests_hard_limit": waiting(max_in_flight),
        }
    return list(chosen.items())
