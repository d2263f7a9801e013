"""Calls at a fixed rate, whatever becomes of them: an open loop over HTTP/2 frames written by hand, without a library.

`python open_loop.py SOCKET RATE SECONDS DEADLINE_MS CANCEL_EVERY` prints `sent` once all calls are, and then one JSON object. A client like Envoy: each call has
a deadline and is reset when it is over; a connection takes 1,000 calls at once, what is more is not sent. Every so many-th
call (0: none) asks for what is never answered, and is cancelled after 20 ms.
"""

import collections
import json
import selectors
import socket
import struct
import sys
import threading
import time

CONNECTIONS, STREAMS = 4, 1000
TICK_S = 0.002
"""Looks and writes so often, as many at once as there are: one that woke for each answer would need a core of its own."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def frame(kind, flags, stream, content=b""):
    return struct.pack(">IBI", len(content) << 8 | kind, flags, stream) + content


def literal(name, value):
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request(method, deadline_ms):
    """The frames of one call but for its stream."""
    head = b"\x83\x86" + b"\x04" + bytes([len(method)]) + method + b"\x01\x01a"
    head += literal(b"te", b"trailers") + literal(b"content-type", b"application/grpc")
    head += literal(b"grpc-timeout", b"%dm" % deadline_ms)
    return head, bytes(5)


class Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.socket.setblocking(False)
        settings = struct.pack(">HI", 4, 2**31 - 1)  # INITIAL_WINDOW_SIZE
        self.out = bytearray(
            PREFACE
            + frame(SETTINGS, 0, 0, settings)
            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 65536))
        )
        self.got = bytearray()
        self.stream, self.window, self.lost = 1, 65535, False
        self.began, self.kind, self.order = {}, {}, collections.deque()
        self.cancels = collections.deque()


def main(path, rate, seconds, deadline_ms, cancel_every):
    head, body = request(b"/toy.Toy/Do", int(deadline_ms))
    never, _ = request(b"/toy.Toy/Wait", 60_000)
    rate, seconds, deadline, cancel_every = (
        float(rate),
        float(seconds),
        int(deadline_ms) / 1000,
        int(cancel_every),
    )
    connections = [Connection(path) for _ in range(CONNECTIONS)]
    selector = selectors.DefaultSelector()
    for one in connections:
        selector.register(one.socket, selectors.EVENT_READ, one)
    count, waits = collections.Counter(), collections.defaultdict(list)

    def begin(one, now, cancelled):
        if one.lost or len(one.began) >= STREAMS or one.window < 1000 or len(one.out) > 1 << 20:
            count["unsent"] += 1
            return
        stream, one.stream = one.stream, one.stream + 2
        one.out += frame(HEADERS, END_HEADERS, stream, never if cancelled else head)
        one.out += frame(DATA, END_STREAM, stream, body)
        one.window -= len(body)
        one.began[stream] = now
        (one.cancels if cancelled else one.order).append((now + (0.02 if cancelled else deadline), stream))

    def ended(one, stream, now, kind):
        began = one.began.pop(stream, None)
        if began is not None:
            count[kind] += 1
            waits[kind].append(now - began)

    def read(one, now):
        try:
            content = one.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionError:
            content = b""
        if not content:
            count["lost"] += len(one.began)
            one.began.clear()
            one.out.clear()
            one.lost = True
            selector.unregister(one.socket)
            return
        one.got += content
        got, at = one.got, 0
        while len(got) - at >= 9:
            size_kind, flags, stream = struct.unpack_from(">IBI", got, at)
            size, kind = size_kind >> 8, size_kind & 255
            if len(got) - at < 9 + size:
                break
            content = bytes(got[at + 9 : at + 9 + size])
            at += 9 + size
            if kind == DATA:
                one.kind[stream] = content[5:].decode()
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                ended(one, stream, now, one.kind.pop(stream, "error"))
            elif kind == RST_STREAM:
                ended(one, stream, now, one.kind.pop(stream, "reset"))
            elif kind == WINDOW_UPDATE and stream == 0:
                one.window += struct.unpack(">I", content)[0]
            elif kind == PING and not flags & ACK:
                one.out += frame(PING, ACK, 0, content)
            elif kind == SETTINGS and not flags & ACK:
                one.out += frame(SETTINGS, ACK, 0)
            elif kind == GOAWAY:
                count["goaway"] += 1
        del got[:at]

    def expire(one, queue, now, kind):
        while queue and queue[0][0] < now:
            stream = queue.popleft()[1]
            if stream in one.began:
                one.out += frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                one.kind.pop(stream, None)
                ended(one, stream, now, kind)

    def flush(one):
        try:
            if one.out and not one.lost:
                del one.out[: one.socket.send(one.out)]
        except (BlockingIOError, ConnectionError):
            pass

    rhythm = threading.Event()  # never set: nothing is waited for but the next tick
    started, asked, flushed = time.perf_counter(), 0, False
    while (
        (now := time.perf_counter()) < started + seconds
        or not flushed
        or any(one.began for one in connections)
    ):
        due = int(min(now - started, seconds) * rate)
        for number in range(asked, due):
            begin(connections[number % CONNECTIONS], now, bool(cancel_every) and number % cancel_every == 0)
        asked = due
        for one in connections:
            expire(one, one.order, now, "late")
            expire(one, one.cancels, now, "cancelled")
            flush(one)
        if asked == int(seconds * rate) and not flushed and not any(one.out for one in connections):
            flushed = True
            print("sent", flush=True)
        rhythm.wait(max(0, now + TICK_S - time.perf_counter()))
        for key, _ in selector.select(0):
            read(key.data, time.perf_counter())
    about = {kind: sorted(each) for kind, each in waits.items()}
    print(
        json.dumps(
            {
                "offered": asked / seconds,
                **count,
                "ms": {
                    k: [round(1000 * v[int(len(v) * q)], 2) for q in (0.5, 0.99)] for k, v in about.items()
                },
            }
        )
    )


main(*sys.argv[1:])
