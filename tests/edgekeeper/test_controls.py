"""What operators have a running service do through `admin.control`: done by a worker, bounded in size and time, logged."""

import asyncio
import errno
import json
import os
import socket
import time
from pathlib import Path
from signal import SIGSTOP, SIGTERM, SIGUSR2
from types import SimpleNamespace

import aiohttp
import pytest

from edgekeeper import admin, enquiry, questions, worker
from edgekeeper.config import Address
from edgekeeper.enquiry import control, control_address
from edgekeeper.errors import DependencyError, OperatorError
from edgekeeper.link import ALIVE, CONTROL, Link, answer
from edgekeeper.questions import MAX_ANSWER_BYTES, MAX_BODY_BYTES, Answer, Answers, Question, together
from edgekeeper.service import Control, Done, Text
from edgekeeper.settings import load

SERVE = ("-m", "edgekeeper", "serve", "--config")
ADMIN = {"listen": "unix:admin.sock", "control": "unix:control.sock"}


@pytest.fixture
async def served(toys, start):
    toys.sections["twin"]["workers"] = 2
    running = await start(*SERVE, str(toys.write(admin=ADMIN)))
    await toys.ready()
    return running


async def post(toys, path: str, body: bytes = b"") -> tuple[int, object]:
    connector = aiohttp.UnixConnector(str(toys.place / "control.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.post(f"http://control{path}", data=body) as reply,
    ):
        text = await reply.text()
        return reply.status, json.loads(text) if text.startswith("{") else text


# -- through the processes ---------------------------------------------------------------------------------------------


async def test_a_worker_does_it_and_its_status_and_words_are_the_answer(toys, served):
    pid = toys.workers()["toy/0"]
    assert (200, {"pid": pid, "length": 3}) == await post(toys, "/toy/play", b"abc")
    assert (429, {"pid": pid, "length": 4}) == await post(toys, "/toy/play", b"over")
    assert 2.0 == await toys.metric('edgekeeper_toy_asked_total{service="toy"}')


async def test_what_is_for_all_workers_is_done_by_each(toys, served):
    status, said = await post(toys, "/twin/all")
    pids = [toys.workers()[f"twin/{number}"] for number in range(2)]
    assert (200, {"workers": [{"pid": pid, "length": 0} for pid in pids]}) == (status, said)
    line = await served.said("control")
    assert ("twin/all", "played ", 200) == (line["control"], line["about"], line["status"])


async def test_it_is_logged_with_who_asked_and_nothing_of_the_body(toys, served, canary):
    await post(toys, "/toy/play", f"x {canary}".encode())
    line = await served.said("control")
    want = {"control": "toy/play", "about": "played x", "status": 200}
    assert {**want, "peer.uid": os.getuid(), "peer.pid": os.getpid()} == {
        name: line.get(name) for name in (*want, "peer.uid", "peer.pid")
    }
    assert canary not in served.text
    await post(toys, "/reload")
    assert ("reload", os.getuid()) == ((line := await served.said("control", 2))["control"], line["peer.uid"])


async def test_what_is_refused_or_fails_tells_no_more_than_the_services_own_words(toys, served, canary):
    assert (400, {"why": "the toy refuses"}) == await post(toys, "/toy/play", b"refuse")
    failed = await post(toys, "/toy/play", f"fail {canary}".encode())
    assert (500, {"why": "the service could not answer; its log says where"}) == failed
    line = await served.said("a question has no answer")
    assert ("ValueError", False) == (line["exception.type"], canary in served.text)


async def test_only_a_post_of_what_there_is_with_a_body_of_64_kib_and_no_parameters_does_anything(
    toys, served
):
    for path in ("/toy/nothing", "/nobody/play", "/toy/words", "/toy/play/more", "/toy/"):
        assert (404, "404 Not Found\n") == await post(toys, path)
    status, said = await post(toys, "/toy/play?a=b")
    assert (400, {"why": "a control has a body, and no parameters"}) == (status, said)
    assert 200 == (await post(toys, "/toy/play", b"x" * MAX_BODY_BYTES))[0]
    assert 413 == (await post(toys, "/toy/play", b"x" * (MAX_BODY_BYTES + 1)))[0]
    assert (404, "404 Not Found\n") == await toys.admin("/toy/play")


async def test_a_control_that_waits_keeps_no_question_and_no_reload_waiting(toys, served):
    waiting = asyncio.ensure_future(post(toys, "/toy/play", b"wait 1"))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while not waiting.done():
            status, _ = await toys.admin("/toy/words")
            assert 200 == status
    assert 200 == (await waiting)[0]
    assert served.lines("a worker does not answer and is killed") == []


async def test_a_control_that_takes_too_long_is_503_and_the_worker_lives_on(toys, served):
    pid = toys.workers()["toy/0"]
    why = "not done within 2 s; it may come to be all the same"
    assert (503, {"why": why}) == await post(toys, "/toy/play", b"wait 30")
    assert (200, {"pid": pid, "length": 0}) == await post(toys, "/toy/play")


async def test_of_a_worker_that_hangs_it_is_not_known_and_no_other_one_does_it(toys, served):
    os.kill(toys.workers()["twin/0"], SIGSTOP)
    assert (503, {"why": "no worker of the service answers"}) == await post(toys, "/twin/play")
    assert 0.0 == await toys.metric('edgekeeper_twin_asked_total{service="twin"}')


async def test_a_planned_restart_lets_a_control_end_that_is_under_way(toys, served):
    pids = toys.workers()
    waiting = asyncio.ensure_future(post(toys, "/toy/play", b"wait 1.5"))
    assert 200 == (await post(toys, "/twin/play"))[0]  # the one before it is under way by now
    served.signal(SIGUSR2)
    assert (200, {"pid": pids["toy/0"], "length": 8}) == await waiting
    await served.said("left", 3)
    await toys.ready()
    assert (200, toys.workers()["toy/0"]) == ((after := await post(toys, "/toy/play"))[0], after[1]["pid"])
    assert served.lines("a worker does not answer and is killed") == []
    assert 0 == await served.end(SIGTERM)


async def test_the_commands_have_it_done_and_hear_why_not(toys, served):
    at = Address(path=str(toys.place / "control.sock"))

    def done(name: str, body: object = "") -> object:
        return asyncio.to_thread(control, at, "toy", name, body)

    assert len(r'"\u00e4x"') == (await done("play", "äx"))["length"]
    assert [10] == [each["length"] for each in (await done("all", "12345678"))["workers"]]
    with pytest.raises(OperatorError, match="has no `toy`"):
        await done("nothing")
    with pytest.raises(OperatorError, match="too long: 70002 bytes"):
        await done("play", "x" * 70_000)
    with pytest.raises(DependencyError, match=r"nothing answers at unix:.*none\.sock: No such file"):
        control(Address(path=str(toys.place / "none.sock")), "toy", "play", {})


async def test_a_question_may_be_answered_in_text(toys, served):
    connector = aiohttp.UnixConnector(str(toys.place / "admin.sock"))
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        client.get("http://admin/toy/page?of=all") as reply,
    ):
        assert ("text/plain", "page of all\n") == (reply.content_type, await reply.text())


# -- in one process ----------------------------------------------------------------------------------------------------


async def done(do, *, name: str = "c", everywhere: bool = False) -> Answer:
    answers = Answers(None, {}, {"c": Control(do, everywhere=everywhere)})
    found = Answer.unpacked(await answers.control(Question(name, body=b"b").packed()))
    assert found is not None
    return found


async def test_a_control_gets_the_body_and_its_answer_says_whether_all_are_to_do_it():
    async def do(_application: object, body: bytes) -> Done:
        return Done({"body": body.decode()}, 202, "told")

    want = (202, {"body": "b"}, "told", False)
    found = await done(do)
    assert want == (found.status, json.loads(found.body), found.about, found.everywhere)
    assert True is (await done(do, everywhere=True)).everywhere
    assert (404, False) == ((other := await done(do, name="x", everywhere=True)).status, other.everywhere)


async def test_a_refusal_is_for_all_workers_too():
    async def refuse(_application: object, _body: bytes) -> Done:
        raise OperatorError("no")

    assert (400, True) == ((found := await done(refuse, everywhere=True)).status, found.everywhere)


async def test_what_is_no_control_of_this_version_is_told_apart():
    assert b"" == await Answers(None, {}).control(b"nonsense")


async def test_the_answer_to_a_control_is_bounded():
    async def do(_application: object, _body: bytes) -> Done:
        return Done("x" * MAX_ANSWER_BYTES, 200, "long" * 1000)

    assert (500, "long" * 50) == ((found := await done(do)).status, found.about)


def test_answers_of_all_workers_are_one_with_the_worst_status():
    good, bad = Answer.of({"n": 1}, about="a"), Answer.refusal(400, "no")
    found = together([good, Answer.of(Text("t"))])
    assert (200, {"workers": [{"n": 1}, "t"]}, "a") == (found.status, json.loads(found.body), found.about)
    found = together([bad, None, good])
    want = {"workers": [{"why": "no"}, None, {"n": 1}]}
    assert (503, want, "a") == (found.status, json.loads(found.body), found.about)


@pytest.fixture
async def line():
    """A worker's line to a loop in which controls wait until `go_on` is set; and who is asked."""
    ours, theirs = socket.socketpair()
    link, go_on = Link(ours), asyncio.Event()

    async def later(content: bytes) -> bytes:
        await go_on.wait()
        return content

    answering = asyncio.ensure_future(answer(theirs, {ALIVE: lambda _: b"yes"}, {CONTROL: later}))
    yield link, go_on
    link.close()
    await answering


async def test_what_waits_is_answered_out_of_the_order(line):
    link, go_on = line
    waiting = asyncio.ensure_future(link.ask_later(CONTROL, b"c", within_s=10))
    assert b"yes" == await link.ask(ALIVE)
    assert not await link.settle(0.01)
    go_on.set()
    assert (b"c", True) == (await waiting, await link.settle(1))


async def test_an_answer_that_nobody_waits_for_any_more_is_not_the_next_ones(line):
    link, go_on = line
    assert None is await link.ask_later(CONTROL, b"first", within_s=0.01)
    waiting = asyncio.ensure_future(link.ask_later(CONTROL, b"second", within_s=10))
    assert b"yes" == await link.ask(ALIVE)
    go_on.set()
    assert (b"second", True) == (await waiting, await link.settle(1))


async def test_a_line_that_ends_leaves_nobody_waiting(line):
    link, _ = line
    waiting = asyncio.ensure_future(link.ask_later(CONTROL, b"c", within_s=1000))
    assert b"yes" == await link.ask(ALIVE)
    link.close()
    async with asyncio.timeout(10):
        assert (None, None) == (await waiting, await link.ask_later(CONTROL, b"c", within_s=1000))


async def test_a_worker_of_an_older_version_does_not_know_controls():
    ours, theirs = socket.socketpair()
    link = Link(ours)
    answering = asyncio.ensure_future(answer(theirs, {}))
    assert None is await link.ask_later(CONTROL, b"c", within_s=10)
    assert await link.settle(0)
    link.close()
    await answering


async def test_a_control_whose_answering_fails_is_answered_all_the_same():
    async def fail(_: bytes) -> bytes:
        raise ValueError

    ours, theirs = socket.socketpair()
    link = Link(ours)
    answering = asyncio.ensure_future(answer(theirs, {}, {CONTROL: fail}))
    assert b"" == await link.ask_later(CONTROL, b"c", within_s=10)
    link.close()
    await answering


async def test_a_second_control_is_not_put_while_the_first_is_not_taken_note_of():
    ours, theirs = socket.socketpair()
    link = Link(ours)
    assert None is await link.ask_later(CONTROL, b"one", within_s=0.01)
    assert None is await link.ask_later(CONTROL, b"two", within_s=0.01)
    assert b"\3\0\0\0\7\0\0\0\1one" == theirs.recv(100)
    theirs.sendall(b"\0\0\0\1\1" + b"\x80\0\0\4\0\0\0\1")
    assert await link.settle(10)
    link.close()
    theirs.close()
    await asyncio.sleep(0)


async def test_controls_are_one_at_a_time_and_what_is_more_than_may_wait_is_refused(
    line, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(worker, "MAX_WAITING", 2)
    link, go_on = line
    asking = worker.Worker.__new__(worker.Worker)
    asking.link, asking._controls, asking._one_control = link, 0, asyncio.Lock()
    waiting = [asyncio.ensure_future(asking.control(Question("c", number=n))) for n in range(3)]
    assert b"yes" == await link.ask(ALIVE)
    refused = await asking.control(Question("c"))
    assert refused is not None
    assert (503, b"too much is to be done already") == (refused.status, refused.body[12:-4])
    assert 1 == len(link._later)
    go_on.set()
    await asyncio.gather(*waiting)
    assert 0 == asking._controls


async def test_two_controls_never_come_closer_than_the_pause(line):
    link, go_on = line
    go_on.set()
    asking = worker.Worker.__new__(worker.Worker)
    asking.link, asking._controls, asking._one_control = link, 0, asyncio.Lock()
    began = time.monotonic()
    await asyncio.gather(*(asking.control(Question("c")) for _ in range(3)))
    assert 3 * worker.ASK_PAUSE_S <= time.monotonic() - began + 0.01


async def test_a_worker_whose_line_ends_does_not_go_on_with_what_waits():
    ours, theirs = socket.socketpair()
    link, given_up = Link(ours), asyncio.Event()

    async def later(content: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return content

    answering = asyncio.ensure_future(answer(theirs, {}, {CONTROL: later}))
    waiting = asyncio.ensure_future(link.ask_later(CONTROL, b"c", within_s=10))
    assert b"" == await link.ask(ALIVE)
    link.close()
    await asyncio.wait_for(given_up.wait(), 10)
    await asyncio.gather(waiting, answering)


async def test_who_has_hung_up_is_nobody():
    assert {} == admin._peer(SimpleNamespace(transport=None))


def test_a_socket_that_may_not_be_opened_is_said_to_be_its_owners(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(enquiry._UnixConnection, "connect", refuse)
    with pytest.raises(DependencyError, match="Permission denied; only its owner may"):
        control(Address(path="/tmp/c.sock"), "toy", "play", {})


def test_whoever_asks_waits_longer_than_all_before_may_take():
    assert (
        enquiry.CONTROL_PATIENCE_S
        > 30
        > (worker.MAX_WAITING + 1) * (questions.CONTROL_S + worker.ASK_PAUSE_S)
    )


def test_without_a_control_address_the_commands_say_which_line_to_add(sockets: Path):
    file = sockets / "edgekeeper.yaml"
    file.write_text("ratelimit: {listen: 'unix:r.sock', limits: [limits]}\n")
    with pytest.raises(OperatorError) as caught:
        control_address(load(str(file)))
    assert str(caught.value).endswith("  admin:\n    control: unix:/run/edgekeeper/control.sock")
    assert str(file) in str(caught.value)
    file.write_text("admin: {control: 'unix:c.sock'}\nratelimit: {listen: 'unix:r.sock', limits: [limits]}\n")
    assert str(sockets / "c.sock") == control_address(load(str(file))).path
