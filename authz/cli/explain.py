"""`edgekeeper authz explain`: why a request is decided as it is. Root."""

import sys
import time
from typing import Any

import click

from authz.attributes import Attributes
from authz.explain import Explanation, explain
from authz.matchers import address_of
from edgekeeper.commands import config_option, echo_json, exits, format_option, loaded

__all__ = ["command"]


@click.command("explain")
@click.argument("method")
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME: VALUE", help="A request header; repeatable."
)
@click.option(
    "--client-ip", default="127.0.0.1", show_default=True, help="The address of the connection's peer."
)
@config_option
@format_option
def command(
    method: str, url: str, headers: tuple[str, ...], client_ip: str, config: str | None, format_: str
) -> None:
    """Decide one request as the service would, and say what each rule said to it.

    Exits 0 when the request is allowed, 1 when it is denied, 2 on bad usage.

    \b
    Example:  edgekeeper authz explain GET https://api.example.com/v1/orders -H 'authorization: Bearer ...'
    """
    from authz.__main__ import SERVICE

    request = _request(method, url, headers, client_ip)
    _, policies = loaded(SERVICE, config, format_)
    with exits():
        explanation = explain(policies, request, time.time_ns() // 1000)
        if format_ == "json":
            echo_json(explanation.plain())
        else:
            _echo(explanation)
        sys.exit(0 if explanation.decision.effect == "allow" else 1)


def _request(method: str, url: str, headers: tuple[str, ...], client_ip: str) -> Attributes:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"http", "https"}:
        raise click.BadParameter("expected http://HOST/PATH or https://HOST/PATH", param_hint="URL")
    if address_of(client_ip) is None:
        raise click.BadParameter("expected an IP address", param_hint="--client-ip")
    # no URL parser: the target goes to the decision as a client would send it
    ends = [at for at in (rest.find("/"), rest.find("?")) if at >= 0]
    end = min(ends, default=len(rest))
    target = rest[end:] if rest[end : end + 1] == "/" else f"/{rest[end:]}"
    lines: dict[str, tuple[str, ...]] = {}
    for line in headers:
        name, colon, value = line.partition(":")
        if not colon or not name:
            raise click.BadParameter("expected NAME: VALUE", param_hint="--header")
        key = name.strip().lower()
        lines[key] = (*lines.get(key, ()), value.strip())
    return Attributes(
        method=method,
        target=target,
        host=rest[:end],
        scheme=scheme,
        protocol="HTTP/1.1",
        headers=lines,
        source_address=client_ip,
    )


def _echo(explanation: Explanation) -> None:
    plain = explanation.plain()
    click.echo(f"{plain['effect']} by {plain['policy'] or '-'} / {plain['rule'] or '-'}: {plain['reason']}")
    if plain["detail"]:
        click.echo(f"  because {plain['detail']}")
    if plain["identity"]["kind"]:
        click.echo(
            "  identity " + " ".join(f"{name}={text}" for name, text in plain["identity"].items() if text)
        )
    for name, value in plain["answer"].items():
        if value:
            click.echo(f"  {name}: {_inline(value)}")
    for name in ("metadata", "shadow"):
        if plain[name]:
            click.echo(f"  {name}: {_inline(plain[name])}")
    if explanation.refused:
        click.echo("  refused before any rule was looked at")
    for note in explanation.rules:
        mode = " (shadow)" if note.mode == "shadow" else ""
        outcome = note.outcome if note.outcome in {"matched", "not reached"} else f"no match: {note.outcome}"
        click.echo(f"  rule {note.document} / {note.rule}{mode} would {note.effect}: {outcome}")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    if isinstance(value, list):
        return ", ".join(_inline(each) for each in value)
    return str(value)
