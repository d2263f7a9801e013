"""Asking a running Edgekeeper through its admin address, or having it do something, as the commands do. Edge: one HTTP connection."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from edgekeeper.config import Address
from edgekeeper.errors import DependencyError, OperatorError
from edgekeeper.questions import MAX_BODY_BYTES, MAX_QUESTION_BYTES
from edgekeeper.settings import Settings

__all__ = ["ask", "control", "control_address"]

PATIENCE_S: Final = 10.0

CONTROL_PATIENCE_S: Final = 35.0
"""A control may wait for others before it; the door closes after 30 s."""


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
    status, said = _said(address, service, _Enquiry("GET", target))
    if status == http.client.OK and said is not None:
        return said
    raise _error(address, status, said)


def control(address: Address, service: str, name: str, body: object) -> Any:
    """Return what the service at the control address says, as plain data, to `body` (as JSON), once it has done as told.

    Of one that each worker does, that is `{"workers": [...]}`, with null for a worker of which it is not known.

    Raises:
        OperatorError: Operator error: there is no such service or control there, it is refused (the text is the
            service's), or the body is too long.
        DependencyError: Dependency error: nobody listens there or lets us in, no worker answers, or it cannot be done.
    """
    content = json.dumps(body).encode()
    if len(content) > MAX_BODY_BYTES:
        raise OperatorError(f"too long: {len(content)} bytes, at most {MAX_BODY_BYTES}")
    status, said = _said(
        address, service, _Enquiry("POST", f"/{service}/{name}", content, CONTROL_PATIENCE_S)
    )
    if said is not None and (status == http.client.OK or (isinstance(said, dict) and "workers" in said)):
        return said
    raise _error(address, status, said)


def control_address(settings: Settings) -> Address:
    """Return where what runs with these settings takes controls.

    Raises:
        OperatorError: Operator error: nowhere; the text says what to add to the file.
    """
    found = settings.root.admin.control
    if found is None:
        raise OperatorError(
            f"{settings.path} has no `admin.control`, and this goes through it; add it, and restart (SIGUSR2):\n"
            "  admin:\n    control: unix:/run/edgekeeper/control.sock"
        )
    return found


@dataclass(frozen=True)
class _Enquiry:
    method: str
    target: str
    body: bytes | None = None
    patience_s: float = PATIENCE_S


def _said(address: Address, service: str, enquiry: _Enquiry) -> tuple[int, Any]:
    """Return the status and the JSON of the answer, None where it is none."""
    try:
        status, body = _got(address, enquiry)
    except OSError as error:
        why = error.strerror or type(error).__name__
        hint = "only its owner may" if isinstance(error, PermissionError) else "does it run?"
        raise DependencyError(f"nothing answers at {address}: {why}; {hint}") from None
    except http.client.HTTPException:
        raise DependencyError(f"what answers at {address} does not speak HTTP") from None
    if status == http.client.NOT_FOUND:
        raise OperatorError(f"what runs at {address} has no `{service}`, or an older version of it")
    return status, _json(body)


def _error(address: Address, status: int, said: Any) -> OperatorError | DependencyError:
    told: Any = said.get("why") if isinstance(said, dict) else None
    error_of = OperatorError if status == http.client.BAD_REQUEST else DependencyError
    return error_of(str(told or f"{address} answers with status {status}"))


def _got(address: Address, enquiry: _Enquiry) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection
    if address.path is not None:
        connection = _UnixConnection(address.path, enquiry.patience_s)
    else:
        connection = http.client.HTTPConnection(address.host or "", address.port, timeout=enquiry.patience_s)
    try:
        connection.request(enquiry.method, enquiry.target, enquiry.body)
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

    def __init__(self, path: str, patience_s: float) -> None:
        super().__init__("edgekeeper", timeout=patience_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
