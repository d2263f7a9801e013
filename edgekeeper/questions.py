"""Questions to a running service, put through the admin address: `GET /SERVICE/NAME?parameter=...`.

The supervisor packs one, a worker answers it in its event loop, with the generation and the keys that serve. One is
under way at a time in each worker, and a pause follows, so that whoever asks costs those who serve next to nothing.
What is asked may hold a credential: nothing of it is logged, and errors say what a service's own words say, or
nothing. Edge: no I/O.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgekeeper.errors import OperatorError
from edgekeeper.json_text import json_text
from edgekeeper.service import Ask

__all__ = ["MAX_ANSWER_BYTES", "MAX_QUESTION_BYTES", "Answer", "Answers", "Question"]

MAX_QUESTION_BYTES: Final = 96 * 1024
"""The longest request line of a question: a token of 8 KiB, a path of 16 KiB and as many headers, percent-encoded."""

MAX_ANSWER_BYTES: Final = 1024 * 1024

LOG: Final = logging.getLogger("edgekeeper.questions")


class Question(msgspec.Struct, frozen=True):
    """What is asked: the name of the question, and its parameters. `number` is another one for each of a worker."""

    name: str
    parameters: dict[str, str] = {}
    number: int = 0

    def packed(self) -> bytes:
        """Return it as `Answers.answer` takes it."""
        return msgspec.msgpack.encode(self)


class Answer(msgspec.Struct, frozen=True):
    """What is answered: an HTTP status and JSON. `number` is that of the question."""

    status: int
    body: bytes
    number: int = 0

    @classmethod
    def unpacked(cls, content: bytes) -> "Answer | None":
        """Return the answer; None: a worker of another version has answered something else."""
        try:
            return msgspec.msgpack.decode(content, type=cls)
        except msgspec.DecodeError:
            return None


class Answers:
    """The answering side, in a worker. `asks` are the service's own (`Service.asks`)."""

    def __init__(self, application: Any, asks: Mapping[str, Ask]) -> None:
        self._application, self._asks = application, asks

    def answer(self, content: bytes) -> bytes:
        """Return the packed answer to a packed question. It never raises."""
        try:
            question = msgspec.msgpack.decode(content, type=Question)
        except msgspec.DecodeError:
            return b""
        status, body = self._answered(question)
        if len(body) > MAX_ANSWER_BYTES:
            status, body = 500, b'{"why": "the answer is too long"}\n'
        return msgspec.msgpack.encode(Answer(status, body, question.number))

    def _answered(self, question: Question) -> tuple[int, bytes]:
        ask = self._asks.get(question.name)
        if ask is None:
            return 404, _body({"why": "no such question"})
        try:
            return 200, _body(ask(self._application, question.parameters))
        except OperatorError as error:
            return 400, _body({"why": str(error)})
        except Exception as error:
            LOG.error("a question has no answer", extra={"kind": "question"}, exc_info=error)
            return 500, _body({"why": "the service could not answer; its log says where"})


def _body(said: object) -> bytes:
    return json_text(said) + b"\n"
