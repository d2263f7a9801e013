"""Which files are tests of others, and where they lie. Pure: reads only through the `Sources` that it is given."""

from collections.abc import Iterable, Iterator
from typing import Final

from edgekeeper.errors import ConfigError
from edgekeeper.sources import Sources

__all__ = ["files_of_tests", "is_test"]

_ENDINGS: Final = ("_test.yaml", "_test.yml")


def is_test(file: str) -> bool:
    """Return whether the file holds tests, which decide nothing."""
    return file.endswith(_ENDINGS)


def files_of_tests(places: Iterable[str], sources: Sources) -> Iterator[str]:
    """Yield each file of tests below or beside some places, once.

    Raises:
        ConfigError: Operator error: a place is no file and no directory.
    """
    seen: set[str] = set()
    for place in places:
        files = sources.yaml_files(place)
        beside = [*_beside(place, sources)] if files == (place,) else []
        for file in (*files, *beside):
            if is_test(file) and file not in seen:
                seen.add(file)
                yield file


def _beside(file: str, sources: Sources) -> Iterator[str]:
    """Yield the tests beside a file that is named itself."""
    stem = file.removesuffix(".yaml").removesuffix(".yml")
    for ending in _ENDINGS:
        try:
            yield from sources.yaml_files(stem + ending)
        except ConfigError:
            continue  # there are none, which is watched like everything that was asked for
