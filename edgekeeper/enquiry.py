"""Asking a running Edgekeeper through its admin address, as the commands do. Edge: one HTTP connection."""

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from edgekeeper.config import Address
from edgekeeper.errors import DependencyError, OperatorError
from edgekeeper.questions import MAX_QUESTION_BYTES

__all__ = ["ask"]

PATIENCE_S: Final = 10.0


def ask(address: Address, service: str, name: str, parameters: Mapping[str, str]) -> Any:
    """Return what the service at the admin address says to a question, as plain data.

    Raises:
        OperatorError: Operator error: there is no such service or question there, the service refuses the question (the
            text is its own), or it is too long.
        DependencyError: Dependency error: nobody listens there, or no worker answers.
    """
    target = f"/{service}/{name}?{urlencode(parameters)}"
    if len(target) > MAX_QUESTION_BYTES - 100:
        raise OperatorError(
            f"the question is too long: {len(target)} bytes, at most {MAX_QUESTION_BYTES - 100}"
        )
    try:
        status, body = _got(address, target)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DependencyError(f"nothing answers at {address}: {why}; does it run?") from None
    except http.client.HTTPException:
        raise DependencyError(f"what answers at {address} does not speak HTTP") from None
    if status == http.client.NOT_FOUND:
        raise OperatorError(f"what runs at {address} has no `{service}`, or an older version of it")
    said = _json(body)
    if status == http.client.OK and said is not None:
        return said
    told: Any = said.get("why") if isinstance(said, dict) else None
    error_of = OperatorError if status == http.client.BAD_REQUEST else DependencyError
    raise error_of(str(told or f"{address} answers with status {status}"))


def _got(address: Address, target: str) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if address.path is not None:
        connection = _UnixConnection(address.path)
    else:
        connection = http.client.HTTPConnection(address.host or "", address.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("edgekeeper", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)
