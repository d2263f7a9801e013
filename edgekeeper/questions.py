"""What operators ask of a running service, and what they have it do: the two go the same way.

A question is `GET /SERVICE/NAME?parameter=...` on the admin address: a worker answers it in its event loop, at once,
with the generation and the keys that serve. A control is `POST /SERVICE/NAME` with a body on `admin.control`: it may
wait, for `CONTROL_S` at most. The supervisor packs either. One of each kind is under way at a time in each worker, and a
pause follows, so that whoever asks costs those who serve next to nothing. What is asked may hold a credential: nothing
of it is logged, and errors say what a service's own words say, or nothing. Edge: no I/O.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgekeeper.errors import OperatorError
from edgekeeper.json_text import json_text
from edgekeeper.service import Ask, Control, Text

__all__ = [
    "CONTROL_S",
    "MAX_ANSWER_BYTES",
    "MAX_BODY_BYTES",
    "MAX_QUESTION_BYTES",
    "Answer",
    "Answers",
    "Question",
    "together",
]

MAX_QUESTION_BYTES: Final = 96 * 1024
"""The longest request line of a question: a token of 8 KiB, a path of 16 KiB and as many headers, percent-encoded."""

MAX_BODY_BYTES: Final = 64 * 1024
"""The longest body of a control: what Envoy takes as headers (60 KiB), and so all that a descriptor can be made of. A
worker reads it while calls wait; nothing but empty brackets takes it some tenths of a second."""

MAX_ANSWER_BYTES: Final = 1024 * 1024

CONTROL_S: Final = 2.0
"""How long a control may take."""

_MAX_ABOUT: Final = 200

_JSON: Final = "application/json"

LOG: Final = logging.getLogger("edgekeeper.questions")


class Question(msgspec.Struct, frozen=True):
    """What is asked: the name of the question or control, parameters of the one, the body of the other.

    `number` is another one for each question of a worker.
    """

    name: str
    parameters: dict[str, str] = {}
    number: int = 0
    body: bytes = b""

    def packed(self) -> bytes:
        """Return it as `Answers.answer` and `Answers.control` take it."""
        return msgspec.msgpack.encode(self)


class Answer(msgspec.Struct, frozen=True):
    """What is answered: an HTTP status and content. `number` is that of the question.

    Of a control: `about` is for the log, and `everywhere` says that the other workers are to do it, too.
    """

    status: int
    body: bytes
    number: int = 0
    content_type: str = _JSON
    about: str = ""
    everywhere: bool = False

    @classmethod
    def unpacked(cls, content: bytes) -> "Answer | None":
        """Return the answer; None: a worker of another version has answered something else."""
        try:
            return msgspec.msgpack.decode(content, type=cls)
        except msgspec.DecodeError:
            return None

    @classmethod
    def of(cls, said: object, status: int = 200, about: str = "") -> "Answer":
        """Return the answer that says `said`, or that it is too long to be said."""
        if isinstance(said, Text):
            answer = cls(
                status, said.encode(errors="backslashreplace"), 0, "text/plain; charset=utf-8", about
            )
        else:
            answer = cls(status, json_text(said) + b"\n", 0, _JSON, about)
        if len(answer.body) > MAX_ANSWER_BYTES:
            return cls(500, b'{"why": "the answer is too long"}\n', about=about)
        return answer

    @classmethod
    def refusal(cls, status: int, why: object) -> "Answer":
        """Return the answer that only says why there is no other."""
        return cls.of({"why": str(why)}, status)


class Answers:
    """The answering side, in a worker. `asks` and `controls` are the service's own."""

    def __init__(
        self, application: Any, asks: Mapping[str, Ask], controls: Mapping[str, Control] | None = None
    ) -> None:
        self._application, self._asks, self._controls = application, asks, controls or {}

    def answer(self, content: bytes) -> bytes:
        """Return the packed answer to a packed question. It never raises."""
        question = _unpacked(content)
        if question is None:
            return b""
        try:
            answer = Answer.of(self._asks[question.name](self._application, question.parameters))
        except Exception as error:  # noqa: BLE001 - all there is, see `_refused`
            answer = _refused(error, question.name not in self._asks)
        return msgspec.msgpack.encode(msgspec.structs.replace(answer, number=question.number))

    async def control(self, content: bytes) -> bytes:
        """Return the packed answer to a packed control, once it is done, or has taken too long. It raises nothing."""
        question = _unpacked(content)
        if question is None:
            return b""
        control = self._controls.get(question.name)
        try:
            async with asyncio.timeout(CONTROL_S):
                done = await self._controls[question.name].do(self._application, question.body)
            answer = Answer.of(done.said, done.status, done.about[:_MAX_ABOUT])
        except TimeoutError:
            answer = Answer.refusal(503, f"not done within {CONTROL_S:.0f} s; it may come to be all the same")
        except Exception as error:  # noqa: BLE001 - as above
            answer = _refused(error, control is None)
        everywhere = control is not None and control.everywhere
        return msgspec.msgpack.encode(msgspec.structs.replace(answer, everywhere=everywhere))


def _unpacked(content: bytes) -> Question | None:
    try:
        return msgspec.msgpack.decode(content, type=Question)
    except msgspec.DecodeError:
        return None


def _refused(error: Exception, unknown: bool) -> Answer:  # noqa: FBT001
    """Return what is said instead of an answer: of an exception, no more than that there was one."""
    if unknown:
        return Answer.refusal(404, "no such question")
    if isinstance(error, OperatorError):
        return Answer.refusal(400, error)
    LOG.error("a question has no answer", extra={"kind": "question"}, exc_info=error)
    return Answer.refusal(500, "the service could not answer; its log says where")


def together(answers: list[Answer | None]) -> Answer:
    """Return the answers of all workers as one, `{"workers": [...]}`, with the worst of their statuses.

    None, a worker that has not answered, is null there and counts as 503.
    """
    status = max(503 if answer is None else answer.status for answer in answers)
    said = {"workers": [None if answer is None else _part(answer) for answer in answers]}
    about = next((answer.about for answer in answers if answer is not None and answer.about), "")
    return Answer.of(said, status, about)


def _part(answer: Answer) -> object:
    return msgspec.Raw(answer.body) if answer.content_type == _JSON else answer.body.decode()
