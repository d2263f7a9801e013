"""Which error is which gRPC status, and what a peer is told of it."""

import asyncio
import errno

import grpc
import pytest

from edgekeeper import errors
from edgekeeper.errors import (
    Bug,
    ClientError,
    ConfigError,
    DependencyError,
    EdgekeeperError,
    OperatorError,
    Overload,
    Problem,
    WriteError,
    grpc_status,
    write_error,
)
from edgekeeper.settings import Unreadable
from edgekeeper.sockets import InUse

CANARY = "canary-0d11"

TABLE = [
    (EdgekeeperError, "INTERNAL", "internal error"),
    (OperatorError, "FAILED_PRECONDITION", "not configured"),
    (DependencyError, "UNAVAILABLE", "temporarily unavailable"),
    (Overload, "UNAVAILABLE", "temporarily unavailable"),
    (WriteError, "UNAVAILABLE", "temporarily unavailable"),
    (ClientError, "INVALID_ARGUMENT", "malformed request"),
    (Bug, "INTERNAL", "internal error"),
    (Unreadable, "FAILED_PRECONDITION", "not configured"),
    (InUse, "FAILED_PRECONDITION", "not configured"),
    (ValueError, "INTERNAL", "internal error"),
    (OSError, "INTERNAL", "internal error"),
    (TimeoutError, "INTERNAL", "internal error"),
    (asyncio.CancelledError, "INTERNAL", "internal error"),
]


@pytest.mark.parametrize(("error", "code", "text"), TABLE)
def test_an_error_has_one_status_and_says_nothing_of_its_text(
    error: type[BaseException], code: str, text: str
):
    assert (code, text) == grpc_status(error(CANARY))


def test_the_table_has_every_error_of_the_shell():
    declared = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert declared == {error for error, *_ in TABLE if error.__module__ == "edgekeeper.errors"} | {
        ConfigError
    }


def test_no_error_of_ours_is_unknown_which_envoy_would_let_pass():
    assert "UNKNOWN" not in {grpc_status(error())[0] for error, *_ in TABLE}
    assert all(grpc_status(error())[0] in grpc.StatusCode.__members__ for error, *_ in TABLE)


@pytest.mark.parametrize(
    "error",
    [OperatorError, DependencyError, Overload, WriteError, ClientError, Bug, ConfigError, Unreadable, InUse],
)
def test_an_error_says_whose_fault_it_is(error: type[Exception]):
    assert error.__doc__ is not None
    assert error.__doc__.startswith(("Operator error: ", "Dependency error: ", "Client error: ", "Bug: "))


@pytest.mark.parametrize(
    ("problem", "want"),
    [
        (Problem("f.yaml", 7, 5, "wrong"), "f.yaml:7:5: wrong"),
        (Problem("f.yaml", 7, 5, "wrong", "do better"), "f.yaml:7:5: wrong; do better"),
        (Problem("f.yaml", 0, 0, "empty"), "f.yaml: empty"),
    ],
)
def test_a_problem_is_a_line_that_an_editor_can_follow(problem: Problem, want: str):
    assert want == str(problem)


def test_a_config_error_holds_every_problem_once_in_the_order_of_files_and_lines():
    one, two, ten, other = (
        Problem("a", 1, 1, "x"),
        Problem("a", 2, 1, "x"),
        Problem("a", 10, 1, "x"),
        Problem("b", 1, 1, "x"),
    )
    error = ConfigError([other, ten, one, two, one])
    assert (one, two, ten, other) == error.problems
    assert "a:1:1: x\na:2:1: x\na:10:1: x\nb:1:1: x" == str(error)
    assert ("FAILED_PRECONDITION", "not configured") == grpc_status(error)


@pytest.mark.parametrize(
    ("number", "want"),
    [
        (errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EROFS, "read_only"), (errno.EACCES, "read_only"),
        (errno.EPERM, "read_only"), (errno.EFBIG, "too_large"), (errno.ENOENT, "no_directory"),
        (errno.ENOTDIR, "no_directory"), (errno.EEXIST, "no_directory"), (errno.EISDIR, "not_a_file"),
        (errno.ENXIO, "not_a_file"), (errno.EPIPE, "closed"), (errno.EBADF, "closed"), (errno.EAGAIN, "locked"),
        (errno.ENOLCK, "no_locks"), (errno.EMFILE, "no_descriptors"), (errno.ENFILE, "no_descriptors"),
        (errno.EIO, "io_error"), (None, "io_error"),
    ],
)  # fmt: skip
def test_what_the_system_says_of_a_write_is_a_word(number: int | None, want: str):
    assert want == write_error(OSError(number, CANARY) if number else OSError(CANARY)).reason
