"""`edgekeeper authz api-key new`: a key for a caller, and the entry to store of it. Root."""

import json
import re
import secrets
import time
from datetime import UTC, datetime
from typing import Any, Final

import click
from pydantic import ValidationError

from authz.identity.key_format import ALGORITHMS, RANDOM_BYTES, digest_of, made
from authz.sets import ApiKeyEntry, time_us
from edgekeeper.commands import HELP, echo_json, exits, format_option

__all__ = ["command"]

_DAYS: Final = re.compile(r"([1-9][0-9]{0,4})d")
_DAY_US: Final = 86_400_000_000


@click.group("api-key", context_settings=HELP)
def command() -> None:
    """Keys of callers, for `ApiKeySet` documents.

    \b
    Example:  edgekeeper authz api-key new --id globex --scope orders:read
    """


@command.command("new")
@click.option("--id", "id_", required=True, metavar="NAME", help="What the key is called; unique in its set.")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What it may be used for; repeatable."
)
@click.option("--tenant", metavar="NAME", help="Whose key it is.")
@click.option(
    "--expires",
    metavar="TIME",
    help="2027-01-31T12:00:00Z, 2027-01-31 (its beginning, UTC), or 90d from now.",
)
@click.option(
    "--digest",
    "algorithm",
    type=click.Choice(ALGORITHMS),
    default="sha256",
    show_default=True,
    help="How the key is stored.",
)
@format_option
def new(
    id_: str, scopes: tuple[str, ...], tenant: str | None, expires: str | None, algorithm: str, format_: str
) -> None:
    """Make a key of 160 random bits; print it, this once, and the entry to store: its digest, never the key.

    \b
    Example:  edgekeeper authz api-key new --id globex --scope orders:read --expires 90d
    """
    with exits():
        key = made(secrets.token_bytes(RANDOM_BYTES))
        entry: dict[str, Any] = {"id": id_, "digest": f"{algorithm}:{digest_of(key, algorithm).hex()}"}
        entry |= {"scopes": list(scopes)} if scopes else {}
        entry |= {"tenant": tenant} if tenant is not None else {}
        entry |= {"expires": _expiry(expires, time.time_ns() // 1000)} if expires is not None else {}
        _check(entry)
        if format_ == "json":
            echo_json({"key": key, "entry": entry})
            return
        click.echo(f"# the key, for the caller alone; it is not shown again\n{key}\n")
        click.echo("# the entry for `spec.keys` of an ApiKeySet")
        for index, (name, value) in enumerate(entry.items()):
            # JSON is YAML, and leaves no text to be read as something else
            click.echo(f"{'  ' if index else '- '}{name}: {json.dumps(value)}")


def _check(entry: dict[str, Any]) -> None:
    """Check that a document may hold the entry."""
    try:
        ApiKeyEntry.model_validate(entry)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        option = {"scopes": "--scope"}.get(str(first["loc"][0]), f"--{first['loc'][0]}")
        message = str(first.get("ctx", {}).get("error", first["msg"]))
        raise click.BadParameter(message, param_hint=option) from None


def _expiry(text: str, now_us: int) -> str:
    """Return when the key ends, as a document has it."""
    days = _DAYS.fullmatch(text)
    try:
        end_us = now_us + int(days[1]) * _DAY_US if days is not None else time_us(text)
        end = datetime.fromtimestamp(end_us // 1_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            "expected a time such as 2027-01-31T12:00:00Z, a day, or a number of days such as 90d",
            param_hint="--expires",
        ) from None
    if end_us <= now_us:
        raise click.BadParameter("this is over already", param_hint="--expires")
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")
