"""One supervisor has the right to an address; a worker's socket is its own, and nothing is left when it goes."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgekeeper.config import MAX_SOCKET_PATH, Address, address
from edgekeeper.errors import OperatorError
from edgekeeper.sockets import GENERATIONS, Claim, InUse, WorkerSocket, of_worker


def unix(path: Path) -> Address:
    return Address(path=str(path))


def bound(path: Path) -> socket.socket:
    """A server at the socket, as grpc makes one."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def serving(link: Path, worker: int = 0, generation: int = 0) -> tuple[WorkerSocket, socket.socket]:
    own = WorkerSocket(str(link), worker, generation)
    server = bound(own.path)
    own.publish()
    return own, server


def reachable(link: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(link)) == 0


def names(place: Path) -> set[str]:
    return {file.name for file in place.iterdir()}


# -- addresses


@pytest.mark.parametrize(
    ("listen", "worker", "own"),
    [
        ("unix:/run/authz.sock", 0, "unix:/run/authz.sock"),
        ("unix:/run/authz.sock", 3, "unix:/run/authz-3.sock"),
        ("unix:/run/authz", 1, "unix:/run/authz-1"),
        ("unix:/run/authz.v2.sock", 1, "unix:/run/authz.v2-1.sock"),
        ("127.0.0.1:9001", 0, "127.0.0.1:9001"),
        ("127.0.0.1:9001", 2, "127.0.0.1:9003"),
        ("[::1]:9001", 1, "[::1]:9002"),
        ("127.0.0.1:0", 5, "127.0.0.1:0"),
    ],
)
def test_each_worker_has_an_address_of_its_own(listen, worker, own):
    assert own == str(of_worker(address(listen), worker))


def test_the_longest_path_that_is_accepted_leaves_room_for_the_longest_name_of_a_socket():
    longest = "/" + "x" * (MAX_SOCKET_PATH - len("/.sock-63.999999")) + ".sock"
    own = WorkerSocket(str(address(f"unix:{longest}").path), 63, GENERATIONS - 1)
    assert MAX_SOCKET_PATH == len(str(own.path))
    with pytest.raises(ValueError, match="must have 1 to 97 bytes"):
        address(f"unix:{longest}x")


# -- a worker's socket


def test_the_configured_path_leads_to_the_worker_once_it_is_published(sockets: Path):
    link = sockets / "a.sock"
    own = WorkerSocket(str(link), 0, 7)
    assert sockets / "a-0.7.sock" == own.path
    with bound(own.path):
        assert not os.path.lexists(link)
        own.publish()
        assert Path("a-0.7.sock") == link.readlink()
        assert reachable(link)


def test_another_worker_has_a_link_of_its_own(sockets: Path):
    _, first = serving(sockets / "a.sock", 0)
    own, second = serving(sockets / "a.sock", 2, 5)
    with first, second:
        assert (sockets / "a-2.sock", sockets / "a-2.5.sock") == (own.link, own.path)
        assert reachable(sockets / "a-2.sock")
        assert reachable(sockets / "a.sock")


def test_a_published_socket_is_for_owner_and_group(sockets: Path):
    own, server = serving(sockets / "a.sock")
    with server:
        assert 0o660 == stat.S_IMODE(own.path.stat().st_mode)


def test_who_publishes_leaves_the_predecessor_its_socket(sockets: Path):
    old, old_server = serving(sockets / "a.sock", 0, 0)
    new, new_server = serving(sockets / "a.sock", 0, 1)
    with old_server, new_server:
        assert reachable(old.path)
        assert Path("a-0.1.sock") == new.link.readlink()
        old.close()
        assert reachable(new.link)
        assert not old.path.exists()


def test_nothing_is_left_after_close(sockets: Path):
    own, server = serving(sockets / "a.sock")
    server.close()
    own.close()
    assert set() == names(sockets)


def test_close_leaves_a_link_that_leads_elsewhere(sockets: Path):
    own, server = serving(sockets / "a.sock")
    server.close()
    own.link.unlink()
    own.link.symlink_to("a-0.5.sock")
    own.close()
    assert Path("a-0.5.sock") == own.link.readlink()


# -- the right to an address


def test_the_directory_is_made_for_owner_and_group(sockets: Path):
    Claim(unix(sockets / "run" / "a.sock"), 0).release()
    assert 0o750 == stat.S_IMODE((sockets / "run").stat().st_mode)


def test_a_directory_that_is_there_keeps_its_mode(sockets: Path):
    (sockets / "run").mkdir(mode=0o711)
    Claim(unix(sockets / "run" / "a.sock"), 0).release()
    assert 0o711 == stat.S_IMODE((sockets / "run").stat().st_mode)


def test_a_directory_that_cannot_be_made_is_an_error_with_its_name(sockets: Path):
    (sockets / "file").write_bytes(b"")
    with pytest.raises(OperatorError, match=f"{sockets}/file/run: cannot be made: Not a directory"):
        Claim(unix(sockets / "file" / "run" / "a.sock"), 0)


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(sockets: Path):
    (sockets / "authz.sock.lock").symlink_to(sockets / "elsewhere")
    with pytest.raises(OperatorError, match=r"authz\.sock\.lock: cannot be made"):
        Claim(Address(path=str(sockets / "authz.sock")), 0)
    assert not (sockets / "elsewhere").exists()


def test_a_second_claim_is_refused_while_the_first_is_held(sockets: Path):
    link = sockets / "a.sock"
    claim = Claim(unix(link), 0)
    code = (
        "from edgekeeper.config import Address\nfrom edgekeeper.sockets import Claim, InUse\n"
        f"try: Claim(Address(path={str(link)!r}), 0)\nexcept InUse as e: print(e)"
    )
    second = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"another process serves {link}\n" == second.stdout
    with pytest.raises(InUse):
        Claim(unix(link), 0)
    claim.release()
    Claim(unix(link), 0).release()


def test_a_claim_that_is_handed_over_is_held_all_the_while(sockets: Path):
    descriptor = Claim(unix(sockets / "a.sock"), 1).hand_over()
    with pytest.raises(InUse):
        Claim(unix(sockets / "a.sock"), 1)
    assert descriptor is not None
    os.set_inheritable(descriptor, True)
    held = Claim(unix(sockets / "a.sock"), 1, held=descriptor)
    assert not os.get_inheritable(descriptor)
    held.release()
    Claim(unix(sockets / "a.sock"), 1).release()


def test_the_workers_of_a_service_are_claimed_one_by_one(sockets: Path):
    claims = [Claim(unix(sockets / "a.sock"), worker) for worker in range(3)]
    assert {"a.sock.lock", "a-1.sock.lock", "a-2.sock.lock"} == names(sockets)
    for claim in claims:
        claim.release()


def test_the_sockets_of_the_dead_go_and_those_of_the_living_stay(sockets: Path):
    link = sockets / "a.sock"
    for generation in (3, 4, 5):
        serving(link, 0, generation)[1].close()
    serving(link, 1, 9)[1].close()
    (sockets / "a-0.7.sock").write_text("no socket")
    claim = Claim(unix(link), 0)
    claim.clean({3})
    assert {"a.sock.lock", "a-0.3.sock", "a-0.7.sock", "a-1.9.sock", "a-1.sock"} == names(sockets)
    claim.release()


def test_the_link_stays_while_it_leads_to_the_living(sockets: Path):
    serving(sockets / "a.sock", 0, 3)[1].close()
    claim = Claim(unix(sockets / "a.sock"), 0)
    claim.clean({3})
    assert Path("a-0.3.sock") == (sockets / "a.sock").readlink()
    claim.release()


@pytest.mark.parametrize(
    ("linked", "others", "following"),
    [
        (None, [], [0, 1, 2]),
        (41, [], [42, 43]),
        (None, [3], [4, 5]),
        (3, [5], [6]),  # one that was never published may still be leaving, and takes its path with it
        (GENERATIONS - 1, [], [0, 1]),
        (GENERATIONS - 1, [0], [1]),
    ],
)
def test_a_generation_is_never_one_that_somebody_may_have(sockets: Path, linked, others, following):
    for generation in others:
        bound(sockets / f"a-0.{generation}.sock").close()
    if linked is not None:
        (sockets / "a.sock").symlink_to(f"a-0.{linked}.sock")
    claim = Claim(unix(sockets / "a.sock"), 0)
    claim.clean()
    assert following == [claim.next_generation() for _ in following]
    claim.release()


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
        Claim(unix(link), 0)
    assert link.exists()


@pytest.mark.parametrize(
    "target",
    ["{0}/precious-0.1.sock", "../{0.name}/a-0.1.sock", "precious", "precious-0.1.sock", "a-1.1.sock"],
)
def test_a_link_that_is_not_ours_is_an_error_and_what_it_leads_to_stays(sockets: Path, target: str):
    for name in ("precious", "precious-0.1.sock", "a-0.1.sock"):
        (sockets / name).write_text("precious")
    (sockets / "a.sock").symlink_to(target.format(sockets))
    with pytest.raises(OperatorError, match="is not a symbolic link of ours"):
        Claim(unix(sockets / "a.sock"), 0)
    assert 4 == len(names(sockets))


# -- ports


def listening(port: int, *, shared: bool) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        server.bind(("127.0.0.1", port))
    except OSError:
        server.close()
        raise
    server.listen()
    return server


def test_a_claimed_port_is_for_its_workers_alone(unused_tcp_port: int):
    listen = Address(host="127.0.0.1", port=unused_tcp_port)
    claim = Claim(listen, 0)
    with listening(unused_tcp_port, shared=True), listening(unused_tcp_port, shared=True):
        pass  # the old worker and the new one
    with pytest.raises(OSError, match="in use"):
        listening(unused_tcp_port, shared=False)
    with pytest.raises(
        OperatorError, match=f"127.0.0.1:{unused_tcp_port} cannot be bound: Address already in use"
    ):
        Claim(listen, 0)
    claim.release()
    Claim(listen, 0).release()


def test_nobody_is_sent_to_who_only_holds_the_claim(unused_tcp_port: int):
    claim = Claim(Address(host="127.0.0.1", port=unused_tcp_port), 0)
    with socket.socket() as client:
        assert 0 != client.connect_ex(("127.0.0.1", unused_tcp_port))
    claim.release()


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_in_use_is_refused_with_a_sentence(unused_tcp_port: int, shared: bool):
    with listening(unused_tcp_port, shared=shared), pytest.raises(OperatorError, match="cannot be bound"):
        Claim(Address(host="127.0.0.1", port=unused_tcp_port), 0)


def test_nobody_has_a_right_to_any_free_port():
    claims = [Claim(Address(host="127.0.0.1", port=0), worker) for worker in range(2)]
    assert [None, None] == [claim.hand_over() for claim in claims]
    assert 0 == claims[0].next_generation()
