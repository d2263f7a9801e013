"""`edgekeeper demo`: send the table's requests through a real Envoy, read what became of them, print it.

Edge: a terminal.
"""

import asyncio
import json
import re
import shutil
import signal
import textwrap
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import click

from edgekeeper.demo.cases import CASES, HOST, Case
from edgekeeper.demo.edge import Edge
from edgekeeper.demo.http1 import Response

__all__ = ["demo", "stay", "until_signalled"]

_AUTHZ: Final = "ext_authz"
_NAME_OF_LIMIT: Final = re.compile(r'^(\d+), .*?\1;w=\d+;name="([^"]*)"')
_HEADINGS: Final = ("", "request", "status", "decided by, and why", "the upstream saw", "in the access log")
_SHARES: Final = (0, 27, 0, 25, 20, 28)


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `cells` for people, `wrong` for what did not come true."""

    cells: tuple[str, ...]
    wrong: tuple[str, ...]


async def demo() -> bool:
    """Run every case, print the table, return whether all came true."""
    async with Edge() as edge:
        tokens = {
            "alice": edge.identity.token("alice", scope="orders:read", tenant="acme", tier="gold"),
            "expired": edge.identity.token(
                "alice", lifetime_s=-3600, scope="orders:read", tenant="acme", tier="gold"
            ),
        }
        answers = [await _send(edge, number, case, tokens) for number, case in enumerate(CASES)]
        outcomes = [await _outcome(edge, number, *answer) for number, answer in enumerate(answers)]
    width = shutil.get_terminal_size((150, 40)).columns
    click.echo(f"Each row is one request through Envoy, to {HOST} unless another host is shown.\n")
    click.echo(_table([outcome.cells for outcome in outcomes], max(width, 110)))
    wrong = [
        f"{case.title}: {text}"
        for case, outcome in zip(CASES, outcomes, strict=True)
        for text in outcome.wrong
    ]
    for text in wrong:
        click.echo(f"NOT AS EXPECTED  {text}", err=True)
    click.echo(
        f"{len(CASES)} requests through Envoy, {len(wrong)} surprises. `make run` keeps this edge running."
    )
    return not wrong


async def until_signalled(work: Coroutine[Any, Any, bool]) -> bool:
    """Return what `work` returns; SIGINT or SIGTERM cancels it, so that it leaves nothing behind.

    Raises:
        asyncio.CancelledError: a signal came.
    """
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


async def stay(port: int) -> bool:
    """Run the edge until cancelled, with requests to try."""
    async with Edge(edge_port=port) as edge:
        token = edge.identity.token("alice", lifetime_s=3600, scope="orders:read", tenant="acme", tier="gold")
        host, port = edge.envoy.address("edge")
        click.echo(_TRY.format(url=f"http://{host}:{port}", token=token, directory=edge.directory))
        return await asyncio.Event().wait()


_TRY: Final = """The edge runs. In another terminal:

  TOKEN={token}
  curl -i {url}/healthz -H 'host: orders.example.com'
  curl -i {url}/v1/tenants/acme/orders -H 'host: orders.example.com'
  curl -i {url}/v1/tenants/acme/orders -H 'host: orders.example.com' -H "authorization: Bearer $TOKEN" -H 'x-user-id: root'
  curl -i {url}/limited -H 'host: orders.example.com'        # three times
  tail -f {directory}/logs/access.ndjson
  curl --unix-socket {directory}/admin.sock http://admin/readyz
  $EDITOR {directory}/policies/orders/orders.yaml             # read again within a second

Ctrl-C ends it.
"""


async def _send(edge: Edge, number: int, case: Case, tokens: dict[str, str]) -> tuple[Case, Response, bool]:
    before = edge.upstream.seen
    headers = [*case.headers, ("user-agent", _agent(number))]
    token = tokens[case.caller] if case.caller else None
    response = await edge.get(case.path, method=case.method, host=case.host, headers=headers, token=token)
    return case, response, edge.upstream.seen > before


async def _outcome(edge: Edge, number: int, case: Case, response: Response, reached: bool) -> Outcome:  # noqa: FBT001
    record = await edge.record(user_agent__original=_agent(number))
    expected = case.expected
    upstream = _upstream(response, expected.upstream or {}) if reached else None
    seen = {
        "status": response.status,
        "decided": _decided(record),
        "left": _left(response) if expected.left else None,
        "upstream": upstream,
        "record": {name: record.get(name) for name in expected.record},
    }
    wrong = [
        f"{name} is {value!r}, not {getattr(expected, name)!r}"
        for name, value in seen.items()
        if value != getattr(expected, name)
    ]
    cells = (
        "no" if wrong else "ok",
        f"{case.title}\n{case.method} {_where(case)}" + "".join(f"\n{n}: {v}" for n, v in case.headers),
        str(response.status),
        _why(seen["decided"], _left(response)),
        "nothing"
        if upstream is None
        else "\n".join(f"{n}: {v}" for n, v in upstream.items() if v) or "the request",
        _summary(record),
    )
    return Outcome(cells, tuple(wrong))


def _where(case: Case) -> str:
    return case.path if case.host == HOST else f"{case.host}{case.path}"


def _agent(number: int) -> str:
    return f"edgekeeper-demo/{number}"


def _decided(record: dict[str, Any]) -> str:
    """Say who decided, from what the record says: a flag of the rate limit filter, or the metadata that authz set."""
    if "RL" in record.get("envoy.response_flags", ()):
        return "ratelimit: over limit"
    decision = record.get("envoy.metadata", {}).get(_AUTHZ)
    if decision is None:
        return "envoy: answered itself"
    where = "/".join(decision[part] for part in ("policy", "rule") if decision.get(part))
    by = f" by {where}" if where else ""
    reason = decision.get("reason")
    why = f" ({reason})" if reason and decision["effect"] == "deny" else ""
    return f"authz: {decision['effect']}{by}{why}"


def _left(response: Response) -> tuple[str, int] | None:
    """Return limit and name of the one that is nearest, and what is left of it, as Envoy tells the client."""
    match = _NAME_OF_LIMIT.match(response.value("x-ratelimit-limit") or "")
    remaining = response.value("x-ratelimit-remaining")
    return (f"{match[1]} {match[2]}", int(remaining)) if match and remaining is not None else None


def _why(decided: object, left: tuple[str, int] | None) -> str:
    return f"{decided}" + (f"\n{left[1]} left of {left[0]}" if left else "")


def _upstream(response: Response, names: Any) -> dict[str, str | None]:
    """Return what the upstream saw of the named headers; one that came twice shows both."""
    headers = json.loads(response.body)["headers"]
    return {
        name: ", ".join(value for key, value in headers if key.lower().replace("_", "-") == name) or None
        for name in names
    }


def _summary(record: dict[str, Any]) -> str:
    query = f"?{record['url.query']}" if "url.query" in record else ""
    flags = " ".join(record.get("envoy.response_flags", ()))
    line = f"{record.get('http.response.status_code')} {record['http.request.method']} {record['url.path']}{query}"
    return line + (f" {flags}" if flags else "")


def _table(rows: list[tuple[str, ...]], width: int) -> str:
    fixed = {0: 2, 2: 6}
    free = width - sum(fixed.values()) - 2 * (len(_SHARES) - 1)
    widths = [fixed.get(i, free * share // 100) for i, share in enumerate(_SHARES)]
    lines = [_row(_HEADINGS, widths), _row(tuple("-" * w for w in widths), widths)]
    return "\n".join([*lines, *("\n" + _row(row, widths) for row in rows)]) + "\n"


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    columns = [
        [
            line
            for text in cell.split("\n")
            for line in textwrap.wrap(text, width, subsequent_indent="  ", break_on_hyphens=False) or [""]
        ]
        for cell, width in zip(cells, widths, strict=True)
    ]
    height = max(map(len, columns))
    padded = [[*column, *[""] * (height - len(column))] for column in columns]
    lines = zip(*padded, strict=True)
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )
