"""TLS as its files say: whoever connects after they were renewed connects with the new ones. Edge: reads files."""

import logging
import ssl
from pathlib import Path
from typing import TypeAlias

from edgekeeper.errors import OperatorError
from ratelimit.redis_section import RedisTls

__all__ = ["TlsFiles"]

_Seen: TypeAlias = tuple[tuple[int, int, int] | None, ...]


class TlsFiles:
    """The files of a `tls` section. Certificates last for hours or days: they are renewed while we run."""

    def __init__(self, tls: RedisTls, log: logging.Logger) -> None:
        """Read them.

        Raises:
            OperatorError: Operator error: one of them cannot be used; the text names it.
        """
        self._tls, self._log = tls, log
        self._seen = self._look()
        self._context = _context(tls)

    def context(self) -> ssl.SSLContext:
        """Return what to connect with now. Files that cannot be used (half renewed) leave it as it was, and are told once."""
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = _context(self._tls)
            except OperatorError as error:
                self._log.error("renewed TLS files cannot be used", extra={"detail": str(error)})
            else:
                self._log.info("renewed TLS files are used")
        return self._context

    def _look(self) -> _Seen:
        return tuple(_identity(path) for path in (self._tls.ca, self._tls.certificate, self._tls.key))


def _identity(path: str | None) -> tuple[int, int, int] | None:
    """Return what changes when a file is written, or another one takes its place; None: there is none."""
    try:
        found = Path(path).stat() if path is not None else None
    except OSError:
        found = None
    return (found.st_mtime_ns, found.st_ino, found.st_size) if found is not None else None


def _context(tls: RedisTls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(f"`tls.ca`: {tls.ca}: {_why(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        try:
            context.load_cert_chain(tls.certificate, tls.key, password="")  # or a terminal is asked for one
        except (OSError, ssl.SSLError) as error:
            raise OperatorError(
                f"`tls.certificate`, `tls.key`: {tls.certificate}, {tls.key}: {_why(error)}"
            ) from None
    return context


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (
            "no PEM, or a key of another certificate"
            if error.reason is None
            else error.reason.replace("_", " ").lower()
        )
    return error.strerror or "cannot be read"
