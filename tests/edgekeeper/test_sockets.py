"""One process serves a path; who comes after it takes over by a link, and nothing is left when it goes."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgekeeper.errors import OperatorError
from edgekeeper.sockets import InUse, UnixSocket


def bound(path: Path) -> socket.socket:
    """A server at the socket, as grpc makes one."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def serving(link: Path) -> tuple[UnixSocket, socket.socket]:
    unix = UnixSocket(str(link))
    server = bound(unix.path)
    unix.publish()
    return unix, server


def reachable(link: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(link)) == 0


def test_the_configured_path_leads_to_the_process_once_it_is_published(sockets: Path):
    link = sockets / "a.sock"
    unix = UnixSocket(str(link))
    assert sockets / "a-0.0.sock" == unix.path
    with bound(unix.path):
        assert not os.path.lexists(link)
        unix.publish()
        assert Path("a-0.0.sock") == link.readlink()
        assert reachable(link)
        unix.close()


def test_a_published_socket_is_for_owner_and_group(sockets: Path):
    unix, server = serving(sockets / "a.sock")
    with server:
        assert 0o660 == stat.S_IMODE(unix.path.stat().st_mode)
        unix.close()


def test_the_directory_is_made_for_owner_and_group(sockets: Path):
    UnixSocket(str(sockets / "run" / "a.sock")).close()
    assert 0o750 == stat.S_IMODE((sockets / "run").stat().st_mode)


def test_a_directory_that_is_there_keeps_its_mode(sockets: Path):
    (sockets / "run").mkdir(mode=0o711)
    UnixSocket(str(sockets / "run" / "a.sock")).close()
    assert 0o711 == stat.S_IMODE((sockets / "run").stat().st_mode)


def test_a_directory_that_cannot_be_made_is_an_error_with_its_name(sockets: Path):
    (sockets / "file").write_bytes(b"")
    with pytest.raises(OperatorError, match=f"{sockets}/file/run: cannot be made: Not a directory"):
        UnixSocket(str(sockets / "file" / "run" / "a.sock"))


def test_a_second_process_is_refused_while_the_first_lives(sockets: Path):
    link = sockets / "a.sock"
    unix, server = serving(link)
    with server:
        code = f"from edgekeeper.sockets import InUse, UnixSocket\ntry: UnixSocket({str(link)!r})\nexcept InUse as e: print(e)"
        second = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
        )
        assert f"another process serves {link}\n" == second.stdout
        with pytest.raises(InUse):
            UnixSocket(str(link))
        assert reachable(link)
        unix.close()


def test_the_next_process_has_a_socket_of_its_own_and_removes_that_of_a_killed_one(sockets: Path):
    link = sockets / "a.sock"
    killed, server = serving(link)
    server.close()
    os.close(killed._lock)  # what is left of a process that was killed: socket and link, without the lock
    unix = UnixSocket(str(link))
    assert sockets / "a-0.1.sock" == unix.path
    with bound(unix.path):
        assert killed.path.exists()
        unix.publish()
        assert not killed.path.exists()
        assert reachable(link)
        unix.close()


def test_a_socket_that_was_never_published_is_reclaimed(sockets: Path):
    killed = UnixSocket(str(sockets / "a.sock"))
    bound(killed.path).close()
    os.close(killed._lock)
    unix, server = serving(sockets / "a.sock")
    with server:
        assert killed.path == unix.path
        unix.close()


@pytest.mark.parametrize(
    ("before", "after"), [("a-0.41.sock", "a-0.42.sock"), ("a-0.999999.sock", "a-0.0.sock")]
)
def test_generations_are_counted_and_begin_anew_after_six_digits(sockets: Path, before: str, after: str):
    (sockets / "a.sock").symlink_to(before)
    unix = UnixSocket(str(sockets / "a.sock"))
    assert sockets / after == unix.path
    unix.close()


def test_nothing_but_the_lock_is_left_after_close(sockets: Path):
    unix, server = serving(sockets / "a.sock")
    server.close()
    unix.close()
    assert ["a.sock.lock"] == [file.name for file in sockets.iterdir()]


def test_a_path_can_be_served_again_after_close(sockets: Path):
    for _ in range(2):
        unix, server = serving(sockets / "a.sock")
        with server:
            assert reachable(sockets / "a.sock")
        unix.close()


def test_close_leaves_a_link_that_leads_elsewhere(sockets: Path):
    link = sockets / "a.sock"
    unix, server = serving(link)
    server.close()
    link.unlink()
    link.symlink_to("a-0.5.sock")
    unix.close()
    assert Path("a-0.5.sock") == link.readlink()


def test_a_name_without_a_suffix_has_generations_too(sockets: Path):
    (sockets / "a").symlink_to("a-0.3")
    unix = UnixSocket(str(sockets / "a"))
    assert sockets / "a-0.4" == unix.path
    unix.close()


def test_two_services_in_one_directory_do_not_meet(sockets: Path):
    one, two = UnixSocket(str(sockets / "a.sock")), UnixSocket(str(sockets / "b.sock"))
    assert one.path != two.path
    one.close()
    two.close()


@pytest.mark.parametrize("kind", ["file", "directory", "socket"])
def test_what_is_not_ours_in_the_way_is_an_error_and_stays(sockets: Path, kind: str):
    link = sockets / "a.sock"
    if kind == "file":
        link.write_text("precious")
    elif kind == "directory":
        link.mkdir()
    else:
        bound(link).close()
    with pytest.raises(OperatorError, match="exists and is not a symbolic link of ours; remove it"):
        UnixSocket(str(link))
    assert link.exists()


@pytest.mark.parametrize(
    "target", ["{0}/precious-0.1.sock", "../{0.name}/a-0.1.sock", "precious", "precious-0.1.sock"]
)
def test_a_link_that_is_not_ours_is_an_error_and_what_it_leads_to_stays(sockets: Path, target: str):
    for name in ("precious", "precious-0.1.sock", "a-0.1.sock"):
        (sockets / name).write_text("precious")
    (sockets / "a.sock").symlink_to(target.format(sockets))
    with pytest.raises(OperatorError, match="is not a symbolic link of ours"):
        UnixSocket(str(sockets / "a.sock"))
    assert 4 == len(list(sockets.iterdir()))


def test_an_error_does_not_keep_the_lock(sockets: Path):
    (sockets / "a.sock").write_text("in the way")
    with pytest.raises(OperatorError):
        UnixSocket(str(sockets / "a.sock"))
    (sockets / "a.sock").unlink()
    UnixSocket(str(sockets / "a.sock")).close()
