"""What is counted of fetched key sets. Edge."""

from authz.identity.remote import Remote
from edgekeeper.telemetry import Registry

__all__ = ["KeyMetrics"]


class KeyMetrics:
    """What is counted. Labels are names from the configuration and our own words."""

    def __init__(self, registry: Registry) -> None:
        self._age = registry.gauge(
            "edgekeeper_authz_key_set_age_seconds",
            "Time since a provider's keys were fetched; infinite: it has none.",
            "provider",
        )
        self._keys = registry.gauge(
            "edgekeeper_authz_key_set_keys",
            "Keys in a provider's fetched set: usable, and refused, which are left out.",
            "provider",
            "state",
        )
        self._refreshes = registry.counter(
            "edgekeeper_authz_key_set_refreshes_total", "Fetches of key sets by result.", "provider", "result"
        )
        self._files = registry.counter(
            "edgekeeper_authz_key_set_files_total",
            "Files of kept keys: used, ignored, written, not_written.",
            "provider",
            "result",
        )

    def refresh(self, remote: Remote, result: str) -> None:
        """Count a fetch: `ok`, or the reason why it failed."""
        self._refreshes[remote.name, result].value += 1

    def file(self, remote: Remote, result: str) -> None:
        """Count what became of a file."""
        self._files[remote.name, result].value += 1

    def state(self, remote: Remote, age_s: float, usable: int, refused: int) -> None:
        """Tell how a provider's keys are now."""
        self._age[remote.name].value = age_s
        self._keys[remote.name, "usable"].value = usable
        self._keys[remote.name, "refused"].value = refused

    def forget(self) -> None:
        """Tell of no provider any more, until its state is told anew."""
        self._age.forget()
        self._keys.forget()
