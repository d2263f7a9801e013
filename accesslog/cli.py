"""The subcommands of `edgekeeper accesslog`. Root."""

import re
import sys
from typing import Any, Final

import click
import msgspec

from accesslog.config import Sink
from accesslog.redact import Found, Redactor, jwt_masked
from edgekeeper.commands import (
    HELP,
    check_format_option,
    config_option,
    format_option,
    loaded,
    report_problems,
)
from edgekeeper.printable import shown
from edgekeeper.settings import Unreadable, find

__all__ = ["commands"]

_HEADER: Final = re.compile(r"([A-Za-z0-9_-]+): (.*)")


@click.group(
    name="accesslog",
    epilog="Example: edgekeeper accesslog check --config edgekeeper.yaml",
    context_settings=HELP,
)
def commands() -> None:
    """The access-log sink: check its configuration, try its redaction."""


@commands.command(epilog="Example: edgekeeper accesslog check --config edgekeeper.yaml")
@config_option
@check_format_option
def check(config: str | None, format_: str) -> None:
    """Validate the configuration and say what it means. Exits 1 if it is bad, 2 if it cannot be read."""
    from accesslog.__main__ import SERVICE

    section, recording = loaded(SERVICE, config, format_)
    if format_ == "json":
        sinks = [{"name": sink.name, "destination": sink.destination()} for sink in section.sinks]
        report_problems((), format_, generation=recording.generation, sinks=sinks)
        return
    click.echo(f"accesslog: good, generation {recording.generation}")
    for sink in section.sinks:
        click.echo(f"  {_described(sink)}")
    click.echo(f"  metadata: {', '.join(section.metadata_namespaces) or 'none'}")


def _described(sink: Sink) -> str:
    return f"sink {sink.name}: {sink.destination()}"


@commands.command(
    epilog="Example: echo 'https://app.example/cb?code=SplxlOB&page=2' | edgekeeper accesslog redact"
)
@config_option
@format_option
def redact(config: str | None, format_: str) -> None:
    """Show what a record would hold of the URLs and `name: value` headers on standard input, one a line.

    Without --config and without an edgekeeper.yaml in its usual places, the default rules are shown.
    """
    redactor = _redactor(config, format_)
    for raw in sys.stdin.buffer:
        found: Found = {}
        masked = _masked(raw.decode("utf-8", "replace").rstrip("\r\n"), redactor, found)
        if format_ == "json":
            click.echo(msgspec.json.encode({"masked": masked, "redacted": sorted(found)}))
        else:
            click.echo(masked)


def _redactor(config: str | None, format_: str) -> Redactor:
    from accesslog.__main__ import SERVICE

    if config is None:
        try:
            find(None)
        except Unreadable:
            return Redactor()
    recording: Any = loaded(SERVICE, config, format_)[1]
    redactor: Redactor = recording.redactor
    return redactor


def _masked(text: str, redactor: Redactor, found: Found) -> str:
    header = _HEADER.fullmatch(text)
    if header is not None:
        value = redactor.header(header[1].lower(), header[2], header[1].lower(), found)
        text = f"{header[1]}: {value}"
    else:
        text = redactor.url(text, "url", found)
    line, tokens = jwt_masked(text.encode())
    if tokens:
        found["jwt"] = "pattern"
    return shown(line.decode())
