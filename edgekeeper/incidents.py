"""What happens to the workers of one service, counted; and what is done about a crash loop. Edge: moves state files."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgekeeper.quarantine import Quarantine
from edgekeeper.service import Component
from edgekeeper.telemetry import Registry
from edgekeeper.worker import Post

__all__ = ["Incidents"]

LOG: Final = logging.getLogger("edgekeeper.supervisor")


class Incidents:
    """The watcher of all posts of a service. `state` is its directory; `give_up` ends the start of everything."""

    def __init__(self, service: str, state: Path, registry: Registry, give_up: Callable[[], None]) -> None:
        self._service, self._give_up = service, give_up
        self._quarantine = Quarantine(state)
        self._trial: Post | None = None
        self._acquitted = False
        restarts = registry.counter(
            "edgekeeper_worker_restarts_total",
            "Workers started in the place of one that died, was killed because it did not answer, or was replaced.",
            "service", "reason",
        )  # fmt: skip
        self._restarts = {reason: restarts(service, reason) for reason in ("died", "stalled", "replaced")}
        quarantines = registry.counter(
            "edgekeeper_state_quarantines_total",
            "Crash loops for which state files were put aside, and those that were not the cause and were put back.",
            "service", "result",
        )  # fmt: skip
        self._taken, self._put_back = (quarantines(service, result) for result in ("taken", "put_back"))

    def components(self) -> dict[str, Component]:
        """Return what `/readyz` has to say of it: nothing while all is well."""
        if not self._quarantine.files:
            return {}
        detail = f"put aside after a crash loop, see quarantine/: {', '.join(self._quarantine.files)}"
        return {"state": Component(ready=True, detail=detail)}

    def served(self, post: Post) -> None:
        """A worker serves: whatever was put aside for it stays there."""
        self._acquitted = False
        if self._trial == post:
            self._trial = None
            LOG.warning("serving without the state files in quarantine", extra={"service": self._service})

    def died(self, post: Post, reason: str, *, loop: bool) -> None:
        """A worker died: `died`, or `stalled` if it was killed for not answering. With `loop`, as several before it."""
        self._restarts[reason].value += 1
        try:
            if self._trial == post:
                self._acquit()
            elif loop and self._trial is None and not self._acquitted:
                self._suspect(post)
        except OSError as error:
            LOG.error(
                "state files cannot be moved", extra={"service": self._service, "error": error.strerror}
            )

    def replaced(self, post: Post) -> None:
        """A worker serves in the place of one that leaves."""
        self._restarts["replaced"].value += 1

    def cannot_start(self, post: Post) -> None:
        """The very first worker said that it cannot start."""
        self._give_up()

    def _suspect(self, post: Post) -> None:
        if self._quarantine.take():
            self._trial = post
            self._taken.value += 1
            LOG.error(
                "a crash loop: the state files are put in quarantine",
                extra={"service": self._service, "files": list(self._quarantine.files)},
            )

    def _acquit(self) -> None:
        self._trial, self._acquitted = None, True
        self._quarantine.put_back()
        self._put_back.value += 1
        LOG.error(
            "the crash loop goes on without the state files: they are put back",
            extra={"service": self._service},
        )
