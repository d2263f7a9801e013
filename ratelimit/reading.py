"""The files of a section: of limits, and of tests beside them. Application: reads through `Sources`."""

from collections.abc import Iterator

from edgekeeper.beside import files_of_tests, is_test
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, only, parse
from ratelimit.config import RatelimitSection

__all__ = ["documents_of_limits", "documents_of_tests"]


def documents_of_limits(section: RatelimitSection, sources: Sources) -> tuple[list[Document], list[Problem]]:
    """Return every file that can be parsed, once each, and what is wrong with the others."""
    documents: dict[str, Document] = {}
    problems: list[Problem] = []
    for place in section.limits:
        try:
            files = [file for file in sources.yaml_files(place) if not is_test(file)]
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if not files:
            problems.append(
                Problem(place, 0, 0, "there is no file of limits here", "they end in `.yaml` or `.yml`")
            )
        for file in files:
            try:
                documents[file] = only(parse(sources.read(file), file), file, "a file is about one domain")
            except ConfigError as error:
                problems.extend(error.problems)
    return list(documents.values()), problems


def documents_of_tests(
    section: RatelimitSection, sources: Sources
) -> Iterator[tuple[str, Document | ConfigError]]:
    """Yield every file of tests, parsed, or what is wrong with it.

    Raises:
        ConfigError: Operator error: a place is no file and no directory.
    """
    for file in files_of_tests(section.limits, sources):
        try:
            yield file, only(parse(sources.read(file), file), file, "a file tests one domain")
        except ConfigError as error:
            yield file, error
