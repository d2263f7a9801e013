"""Questions to a running service through the admin address: answered by the worker, bounded, and nothing of them told on."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from signal import SIGTERM
from urllib.parse import quote

import msgspec
import pytest

from edgekeeper import enquiry, worker
from edgekeeper.commands import echo_json
from edgekeeper.config import Address
from edgekeeper.enquiry import ask
from edgekeeper.errors import DependencyError, OperatorError
from edgekeeper.link import ASK, Link, answer
from edgekeeper.questions import MAX_ANSWER_BYTES, MAX_QUESTION_BYTES, Answer, Answers, Question

SERVE = ("-m", "edgekeeper", "serve", "--config")


@pytest.fixture
async def served(toys, start):
    running = await start(*SERVE, str(toys.config))
    await toys.ready()
    return running


async def asked(toys, target: str) -> tuple[int, object]:
    status, text = await toys.admin(target)
    return status, json.loads(text) if text.startswith("{") else text


async def test_a_worker_answers_with_what_it_serves(toys, served):
    status, said = await asked(toys, "/toy/words?a=b%20c&d=")
    want = {"pid": toys.workers()["toy/0"], "words": "toy", "letters": {"a": 3, "d": 0}}
    assert (200, want) == (status, said)
    assert "twin" == (await asked(toys, "/twin/words"))[1]["words"]
    await served.end(SIGTERM)


@pytest.mark.parametrize("target", ["/toy/nothing", "/nobody/words", "/toy/words/more", "/toy/"])
async def test_what_nobody_can_be_asked_is_404(toys, served, target):
    assert (404, "404 Not Found\n") == await asked(toys, target)


async def test_a_question_that_is_refused_or_fails_tells_no_more_than_the_services_own_words(
    toys, served, canary
):
    assert (400, {"why": "the toy refuses"}) == await asked(toys, f"/toy/words?refuse={canary}")
    assert (400, {"why": "a parameter stands there twice"}) == await asked(toys, "/toy/words?a=1&a=2")
    status, said = await asked(toys, f"/toy/words?fail={canary}")
    assert (500, {"why": "the service could not answer; its log says where"}) == (status, said)
    line = await served.said("a question has no answer")
    assert ("ValueError", "question") == (line["exception.type"], line["kind"])
    assert canary not in served.text


async def test_a_token_of_8_kib_and_a_path_of_16_kib_fit_and_more_is_refused_and_not_logged(
    toys, served, canary
):
    request = canary + quote(" " * 8_000) + "x" * 24_000
    _, said = await asked(toys, f"/toy/words?request={request}")
    assert {"request": len(canary) + 32_000} == said["letters"]
    status, _ = await toys.admin(f"/toy/words?request={canary}{'x' * MAX_QUESTION_BYTES}")
    assert (400, False) == (status, canary in served.text)


async def test_only_a_get_asks(toys, served):
    reader, writer = await asyncio.open_unix_connection(str(toys.place / "admin.sock"))
    writer.write(b"POST /toy/words HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
    writer.close()


async def test_a_worker_that_is_busy_is_503_and_its_late_answer_is_not_the_next_ones(toys, served):
    slow = await asked(toys, "/toy/words?block=2.3")
    assert (503, {"why": "no worker of the service answers"}) == slow
    async with asyncio.timeout(20):
        while (await asked(toys, "/toy/words?abc=abc"))[0] != 200:
            pass
    assert {"abc": 3} == (await asked(toys, "/toy/words?abc=abc"))[1]["letters"]


async def test_the_commands_ask_over_a_unix_socket_and_hear_why_not(toys, served):
    at = Address(path=str(toys.place / "admin.sock"))

    def said(name: str = "words", **parameters: str) -> object:
        return asyncio.to_thread(ask, at, "toy", name, parameters)

    assert {"x": 6} == (await said(x="ä&=+ %"))["letters"]
    with pytest.raises(OperatorError, match="the toy refuses"):
        await said(refuse="")
    with pytest.raises(DependencyError, match="could not answer"):
        await said(fail="x")
    with pytest.raises(OperatorError, match="has no `toy`"):
        await said("nothing")
    with pytest.raises(OperatorError, match="too long"):
        await said(x="x" * MAX_QUESTION_BYTES)
    with pytest.raises(DependencyError, match=r"nothing answers at unix:.*none\.sock: No such file"):
        ask(Address(path=str(toys.place / "none.sock")), "toy", "words", {})


async def test_the_commands_ask_over_tcp(unused_tcp_port: int):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines.append(await reader.readline())
        writer.write(replies.pop(0))
        writer.close()

    lines: list[bytes] = []
    replies = [
        b'HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{"a":1}',
        b"220 smtp\r\n",
        b"HTTP/1.1 418 T\r\n\r\n",
    ]
    server = await asyncio.start_server(serve, "127.0.0.1", unused_tcp_port)
    at = Address(host="127.0.0.1", port=unused_tcp_port)
    assert {"a": 1} == await asyncio.to_thread(ask, at, "toy", "words", {"b": "c d"})
    assert b"GET /toy/words?b=c+d HTTP/1.1\r\n" == lines[0]
    with pytest.raises(DependencyError, match="does not speak HTTP"):
        await asyncio.to_thread(ask, at, "toy", "words", {})
    with pytest.raises(DependencyError, match="answers with status 418"):
        await asyncio.to_thread(ask, at, "toy", "words", {})
    server.close()
    with pytest.raises(DependencyError, match="nothing answers at"):
        await asyncio.to_thread(ask, at, "toy", "words", {})


# -- in one process ----------------------------------------------------------------------------------------------------


def answered(ask: Callable[..., object], *, name: str = "q") -> Answer:
    packed = Answers(None, {"q": ask}).answer(Question(name, {}, 7).packed())
    found = Answer.unpacked(packed)
    assert found is not None
    return found


def test_an_answer_that_is_too_long_is_none():
    assert 500 == answered(lambda _application, _parameters: "x" * MAX_ANSWER_BYTES).status
    assert 200 == answered(lambda _application, _parameters: "x" * 1000).status


def test_an_answer_has_the_number_of_its_question():
    assert 7 == answered(lambda _application, _parameters: 1).number
    assert (404, 7) == (
        answered(lambda *_: 1, name="other").status,
        answered(lambda *_: 1, name="other").number,
    )


def test_what_is_no_question_or_no_answer_of_this_version_is_told_apart():
    assert b"" == Answers(None, {}).answer(b"nonsense")
    assert None is Answer.unpacked(b"")


async def test_two_questions_never_come_closer_than_the_pause(monkeypatch: pytest.MonkeyPatch):
    """What an operator asks must not become load: one at a time, and a pause after each."""
    ours, theirs = socket.socketpair()
    link, answers = Link(ours), Answers(None, {"q": lambda _application, parameters: dict(parameters)})
    answering = asyncio.ensure_future(answer(theirs, {ASK: answers.answer}))
    asking = worker.Worker.__new__(worker.Worker)
    asking.link, asking._questions, asking._one_question = link, 0, asyncio.Lock()
    began = time.monotonic()
    found = await asyncio.gather(*(asking.ask(Question("q", {"n": str(n)})) for n in range(4)))
    assert [{"n": str(n)} for n in range(4)] == [msgspec.json.decode(each.body) for each in found]
    assert 4 * worker.ASK_PAUSE_S <= time.monotonic() - began + 0.01
    link.close()
    await answering


def test_the_command_waits_longer_than_a_worker_may_take():
    assert enquiry.PATIENCE_S > 2 * worker.ANSWER_S + worker.ASK_PAUSE_S


@pytest.mark.parametrize("text", ["\udcff", "\ud800 \udc00 é", {"\udcff": float("nan")}])
def test_an_answer_may_hold_what_is_no_utf8(text):
    found = answered(lambda *_: {"text": text, "nan": float("nan"), "time": 1.5})
    want = {"\udcff": None} if isinstance(text, dict) else text
    assert (200, {"text": want, "nan": None, "time": 1.5}) == (found.status, json.loads(found.body))


def test_a_refusal_may_hold_what_is_no_utf8():
    def refuses(*_: object) -> object:
        raise OperatorError("\udcff")

    found = answered(refuses)
    assert (400, b'{\n  "why": "\\udcff"\n}\n') == (found.status, found.body)


def test_an_answer_that_no_json_can_hold_is_none():
    endless: list[object] = []
    endless.append(endless)
    assert 500 == answered(lambda *_: endless).status


def test_a_command_prints_the_same_json(capfd: pytest.CaptureFixture[str]):
    for value in ({"a": "é"}, {"a": "\udcff"}):
        echo_json(value)
        assert value == json.loads(printed := capfd.readouterr().out)
        assert printed.startswith('{\n  "a": "')
