"""Calls of one gRPC method over HTTP/2, so cheap that the process which is asked is the one that has no time to spare.

All calls have the same headers, which are sent as they stand (RFC 7541 6.2.2), and only what a caller needs is read of
an answer: its message and its end (RFC 9113 6). What ends without a message has failed. Blocking; one connection, as
each worker of an Envoy has it.
"""

import itertools
import socket
import time
from collections.abc import Callable, Sequence

DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1
LARGE = 2**31 - 1
START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    """Return a frame (RFC 9113 4.1)."""
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def literal(name: str, value: str) -> bytes:
    """Return a header field that no table knows (RFC 7541 6.2.2)."""
    return b"\0" + b"".join(bytes((len(text),)) + text.encode() for text in (name, value))


class Callers:
    """So many calls at once: whoever is answered calls again."""

    def __init__(self, path: str, method: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(path)
        self._streams = itertools.count(1, 2)
        more = {":path": method, ":authority": "bench", "te": "trailers", "content-type": "application/grpc"}
        self._headers = b"\x83\x86" + b"".join(literal(*each) for each in more.items())  # POST, http
        window = frame(SETTINGS, 0, 0, (4).to_bytes(2, "big") + LARGE.to_bytes(4, "big"))
        self._socket.sendall(START + window + frame(8, 0, 0, (LARGE - 65_535).to_bytes(4, "big")))
        self._left = b""

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ask(
        self, requests: Sequence[bytes], in_flight: int, seconds: float, good: Callable[[bytes], bool]
    ) -> int:
        """Keep so many requests in flight for so long; return how many were answered. Each answer must be `good`."""
        coming = itertools.cycle([b"\0" + len(each).to_bytes(4, "big") + each for each in requests])
        self._call([next(coming) for _ in range(in_flight)])
        end, asked, answered = time.monotonic() + seconds, in_flight, 0
        while answered < asked:
            answers = self._answers()
            assert all(good(answer) for answer in answers)
            answered += len(answers)
            if time.monotonic() < end:
                self._call([next(coming) for _ in answers])
                asked += len(answers)
        return answered

    def _call(self, messages: Sequence[bytes]) -> None:
        sent = []
        for message in messages:
            stream = next(self._streams)
            sent.append(frame(HEADERS, END_HEADERS, stream, self._headers))
            sent.append(frame(DATA, END_STREAM, stream, message))
        self._socket.sendall(b"".join(sent))

    def _answers(self) -> list[bytes]:
        """Return the messages of what was answered since, at least one."""
        messages: list[bytes] = []
        ended = 0
        while not ended:
            content = self._left + self._socket.recv(1 << 16)
            at = 0
            while len(content) >= at + 9 and len(content) >= (
                over := at + 9 + int.from_bytes(content[at : at + 3], "big")
            ):
                kind, flags, body = content[at + 3], content[at + 4], content[at + 9 : over]
                at = over
                if kind == DATA:
                    messages.append(body[5:])
                elif kind == HEADERS:
                    ended += flags & END_STREAM
                elif kind == PING and not flags & ACK:
                    self._socket.sendall(frame(PING, ACK, 0, body))
                elif kind == SETTINGS and not flags & ACK:
                    self._socket.sendall(frame(SETTINGS, ACK, 0, b""))
                assert kind != GOAWAY, body
            self._left = content[at:]
        assert len(messages) == ended, "a call has failed"
        return messages
