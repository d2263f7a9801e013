"""The tour of docs/authz.md, command by command: what a new user types gives what the page shows.

In what the page shows, `...` stands for anything; decision ids, generations and ports are those of each run.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOUR = re.search(
    r"^## A tour in six steps\n(.*?)^## ", (ROOT / "docs" / "authz.md").read_text(), re.MULTILINE | re.DOTALL
)[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TOUR, re.MULTILINE | re.DOTALL)
PORTS = {"8080", "9901", "9000"}
VARYING = re.compile(r"\b(?:[0-9a-f]{13}-[0-9a-f]{6}-[0-9]+|[0-9a-f]{12})\b|\.\.\.")
LOGGED = 4  # decisions that step 4 makes
PATIENCE_S = 120.0


class Terminal:
    """A shell in a directory beside which a checkout's `.venv` and `envoy` seem to stand."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.ports = dict(zip(sorted(PORTS), map(str, free_ports(len(PORTS))), strict=True))
        self.seen: dict[str, str] = {}
        (place / ".venv").symlink_to(sys.prefix)
        (place / "envoy").mkdir()
        for file in (ROOT / "envoy").glob("*.yaml"):
            (place / "envoy" / file.name).write_text(self._here(file.read_text()))
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=place,
            env=os.environ | {"LC_ALL": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """Return what a command prints on either stream; one that takes too long ends the shell."""
        watch = threading.Timer(PATIENCE_S, os.killpg, (self._shell.pid, signal.SIGKILL))
        watch.start()
        self._shell.stdin.write(f"{self._here(command)}\necho; echo end-of-output\n")
        self._shell.stdin.flush()
        lines = []
        while (line := self._shell.stdout.readline()) not in {"end-of-output\n", ""}:
            lines.append(line)
        watch.cancel()
        if not line:
            self._shell.wait()
        assert line, f"the shell ended in {command!r}: {''.join(lines)}"
        return "".join(lines)[:-1]

    def write(self, text: str) -> None:
        """Write a block that begins with the name of its file."""
        name = text.partition("\n")[0].removeprefix("# ")
        (self.place / "tour" / name).write_text(text)

    def change(self, text: str) -> None:
        """Do in a file, whose name is the first line, what the block says."""
        first, *lines = text.splitlines(keepends=True)
        file = self.place / "tour" / first.removeprefix("--- ").strip()
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        content = file.read_text()
        assert 1 == content.count(before), f"{file.name} has not once\n{before}"
        file.write_text(content.replace(before, after))

    def shows(self, expected: str, found: str) -> bool:
        """Whether this is what the page shows; learns which of its ids stands for which of ours."""
        pattern, at, learnt = "", 0, {}
        for match in VARYING.finditer(expected):
            pattern += re.escape(self._here(expected[at : match.start()]))
            word, at = match[0], match.end()
            if word == "...":
                pattern += ".*"
            elif word in self.seen or word in learnt.values():
                pattern += re.escape(self.seen[word]) if word in self.seen else f"(?P={_name(learnt, word)})"
            else:
                learnt[f"id{len(learnt)}"] = word
                pattern += f"(?P<id{len(learnt) - 1}>[0-9a-f-]+)"
        match = re.fullmatch(pattern + re.escape(self._here(expected[at:])), found, re.DOTALL)
        if match is not None:
            self.seen |= {word: match[name] for name, word in learnt.items()}
        return match is not None

    def logged(self, decisions: int) -> None:
        """Return when the decision log, which is written in the background, has so many lines."""
        self.run(f"until [ $(wc -l < logs/decisions.ndjson) -ge {decisions} ]; do sleep 0.1; done")

    def close(self) -> None:
        """End all that the shell has started, and the shell."""
        if self._shell.poll() is None:
            self.run("kill $(jobs -p); wait")
        self._shell.stdin.close()
        self._shell.wait()
        self._shell.stdout.close()

    def _here(self, text: str) -> str:
        for word, ours in {**self.ports, **self.seen}.items():
            text = re.sub(rf"\b{word}\b", ours, text)
        return text


def _name(learnt: dict[str, str], word: str) -> str:
    return next(name for name, known in learnt.items() if known == word)


def free_ports(number: int) -> list[int]:
    """Return ports that nobody has, all held until all are known."""
    held = [socket.socket() for _ in range(number)]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


def commands(block: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a block, each with what it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


@pytest.fixture
def terminal(sockets: Path) -> Iterator[Terminal]:
    missing = [name for name in ("bash", "curl", "sed", "grep") if shutil.which(name) is None]
    assert [] == missing, f"install {', '.join(missing)}"
    terminal = Terminal(sockets)
    yield terminal
    terminal.close()


def test_what_the_tour_types_gives_what_it_shows(terminal: Terminal):
    for kind, block in BLOCKS:
        if kind == "yaml":
            terminal.write(block)
        elif kind == "diff":
            terminal.change(block)
        else:
            for command, output in commands(block):
                if command.startswith("grep"):
                    terminal.logged(LOGGED)
                found = terminal.run(command)
                assert terminal.shows(output, found), f"$ {command}\n{found}\nand the page shows\n{output}"


def test_the_tour_has_six_steps():
    assert [str(number) for number in range(1, 7)] == re.findall(r"^### (\d)\.", TOUR, re.MULTILINE)
    assert {"yaml", "diff", "console"} == {kind for kind, _ in BLOCKS}
