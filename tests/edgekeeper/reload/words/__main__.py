"""A service whose generation is the words of its files, and whose build fails in every way that a word can ask for.

The fixture `edge` installs a copy of it, so that a child process finds it.
"""

import gc
import os
import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import click

from edgekeeper.config import Many, Place
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.service import Section, Service
from edgekeeper.sources import Sources
from edgekeeper.yaml import parse


class WordsSection(Section):
    """The words."""

    places: Many[Place]
    """Files with a list of words."""


@dataclass(frozen=True)
class Word:
    text: str


@dataclass(frozen=True)
class Words:
    generation: str
    words: tuple[Word, ...]


def _print() -> None:
    print("nonsense", flush=True)
    os.write(1, b"more of it")


def _tell() -> None:
    core, memory = resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_AS)
    told = f"nice {os.nice(0)}, core {core[0]}, memory bounded: {memory[0] > 0}, garbage: {gc.isenabled()}"
    raise ConfigError([Problem("tell", 0, 0, told)])


DEEDS = {
    "abort": os.abort,
    "exit": lambda: os._exit(0),
    "fail": lambda: os._exit(3),
    "hang": lambda: threading.Event().wait(),
    "kill": lambda: signal.raise_signal(signal.SIGKILL),
    "memory": lambda: bytearray(4 << 30),
    "print": _print,
    "stop": lambda: signal.raise_signal(signal.SIGSTOP),
    "tell": _tell,
}


def build(section: WordsSection, sources: Sources) -> Words:
    found, problems = list[str](), list[Problem]()
    for place in section.places:
        for file in sources.yaml_files(place):
            if file.endswith("_test.yaml"):
                continue
            try:
                for document in parse(sources.read(file), file):
                    if not isinstance(document.value, list):
                        raise ConfigError([document.problem((), "a list of words is needed")])
                    found += document.value
            except ConfigError as error:
                problems += error.problems
    if not found:
        problems.append(Problem(section.places[0], 0, 0, "there are no words"))
    if "bug" in found:
        raise ValueError("canary")
    if problems:
        raise ConfigError(problems)
    for word in found:
        DEEDS.get(word, lambda: None)()
    numbers = range(5000 if "many" in found else 0)
    words = (*map(Word, found), *(Word(f"word {number}") for number in numbers))
    return Words(sources.record().digest(), words)


def tests(section: WordsSection, generation: Words, sources: Sources) -> Iterator[Problem]:
    """Yield each word of the tests that the generation has not."""
    known = {word.text for word in generation.words}
    for place in section.places:
        for file in sources.yaml_files(place):
            (document,) = parse(sources.read(file), file) if file.endswith("_test.yaml") else (None,)
            for index, word in enumerate(document.value if document is not None else ()):
                if word not in known:
                    yield document.problem((index,), f"there is no `{word}`")


SERVICE = Service(
    name="words",
    section=WordsSection,
    grpc_services=("words.Words",),
    build=build,
    application=lambda *_: None,
    commands=click.Group(name="words"),
    tests=tests,
    parts=(Word,),
)
