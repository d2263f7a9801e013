"""Everything that can be wrong with a configuration before it serves. Root."""

from collections.abc import Iterable, Mapping

from edgekeeper import state, tls
from edgekeeper.clock import SystemClock
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.service import Service
from edgekeeper.settings import Settings
from edgekeeper.sources import DiskSources

__all__ = ["problems"]


def problems(settings: Settings, known: Mapping[str, Service]) -> Iterable[Problem]:
    """Yield what is wrong with what the settings name: `state`, certificates, and the files of every service that runs."""
    if (problem := state.problem(settings)) is not None:
        yield problem
    yield from tls.problems(settings, SystemClock().now_us())
    for name, section in settings.sections.items():
        try:
            known[name].generation(section, DiskSources())
        except ConfigError as error:
            yield from error.problems
