"""`edgekeeper ratelimit counters`: what the counters of the running service hold, the heaviest of them, and a reset. Root."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
import msgspec

from edgekeeper.commands import HELP, config_option, counted, echo_json, exits, format_option
from edgekeeper.config import Address, address
from edgekeeper.enquiry import control, control_address
from edgekeeper.errors import DependencyError
from edgekeeper.printable import shown
from edgekeeper.settings import load
from ratelimit.descriptor import Entries, entries_of
from ratelimit.limit import Algorithm, Limit, Unit
from ratelimit.listing import span, words
from ratelimit.top import MOST_TOLD, Heavy, Report, merged

__all__ = ["command"]

SERVICE: Final = "ratelimit"

_control_option = click.option(
    "--control",
    "at",
    metavar="ADDRESS",
    help="Where it is asked. Default: the configuration's `admin.control`.",
)
_domain_option = click.option("--domain", required=True, help="The domain, as in Envoy's filter.")
_descriptor_option = click.option(
    "--descriptor",
    required=True,
    metavar="KEY=VALUE,KEY=VALUE",
    help="The entries of one descriptor in their order; a comma in a value is written `\\,`.",
)


@click.group(
    "counters",
    epilog="Example: edgekeeper ratelimit counters top -n 10",
    context_settings=HELP,
)
def command() -> None:
    """The counters of the running service: look at one descriptor's, reset them, find the heaviest keys.

    All go through `admin.control`, a socket of its owner alone: they show what callers have sent.
    """


@command.command()
@config_option
@_control_option
@format_option
@_domain_option
@_descriptor_option
def get(config: str | None, at: str | None, format_: str, domain: str, descriptor: str) -> None:
    """Show what the counters of a descriptor hold. Nothing is counted by it.

    Exits 0 when something limits the descriptor, 1 when nothing does, 2 when it could not be asked.

    \b
    Example:  edgekeeper ratelimit counters get --domain edge --descriptor tenant=acme
    """
    with exits(config_error=2, format_=format_):
        said = _asked(config, at, "counters", _named(domain, descriptor))
        if format_ == "json":
            echo_json(said)
        else:
            for line in _held(said):
                click.echo(line)
        sys.exit(0 if "counter" in said else 1)


@command.command()
@config_option
@_control_option
@format_option
@_domain_option
@_descriptor_option
def reset(config: str | None, at: str | None, format_: str, domain: str, descriptor: str) -> None:
    """Set the counters of a descriptor to nothing, in the store and in what the workers remember. It is logged.

    Exits 0 when it is done, 1 when nothing limits the descriptor, 2 when it could not be done everywhere.

    \b
    Example:  edgekeeper ratelimit counters reset --domain edge --descriptor tenant=acme
    """
    with exits(config_error=2, format_=format_):
        said = _one(_everybody(config, at, "reset", _named(domain, descriptor)))
        if format_ == "json":
            echo_json(said)
        else:
            click.echo(f"reset: {_rule(said)}" if said["reset"] else _nothing(said))
        sys.exit(0 if said["reset"] else 1)


@command.command()
@config_option
@_control_option
@format_option
@click.option("--domain", help="Only this domain's keys.")
@click.option(
    "-n", "most", type=click.IntRange(1, MOST_TOLD), default=20, show_default=True, help="How many keys."
)
def top(config: str | None, at: str | None, format_: str, domain: str | None, most: int) -> None:
    """Show the keys with the most hits of the last minute or two, of all workers together.

    The service keeps a table of bounded size; by how much a key may have had more stands beside it. The refused share is
    that of the hits since the key came into the table. Shown are the values that callers have sent.

    \b
    Example:  edgekeeper ratelimit counters top --domain edge -n 10
    """
    with exits(config_error=2, format_=format_):
        told = _everybody(config, at, "top", {"domain": domain})
        report = merged(msgspec.convert(each, Report) for each in told)
        report = msgspec.structs.replace(report, keys=report.keys[:most])
        if format_ == "json":
            echo_json(report)
        else:
            for line in _table(report):
                click.echo(line)


# -- asking ------------------------------------------------------------------------------------------------------------


def _named(domain: str, descriptor: str) -> Mapping[str, Any]:
    try:
        entries: Entries = entries_of(descriptor)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--descriptor") from None
    return {"domain": domain, "entries": entries}


def _asked(config: str | None, at: str | None, name: str, body: Mapping[str, Any]) -> Any:
    where = control_address(load(config)) if at is None else _address(at)
    return control(where, SERVICE, name, body)


def _everybody(config: str | None, at: str | None, name: str, body: Mapping[str, Any]) -> list[Any]:
    """Return what each worker says.

    Raises:
        DependencyError: Dependency error: one of them does not answer, or cannot do it.
    """
    workers: list[Any] = _asked(config, at, name, body)["workers"]
    for number, said in enumerate(workers):
        if said is None or "why" in said:
            why = said["why"] if said is not None else "does not answer"
            raise DependencyError(f"worker {number}: {why}")
    return workers


def _one(workers: list[Any]) -> Any:
    """Return the answer that says most: while files change, a rule may be known to one worker and not to another."""
    return max(workers, key=lambda said: said["reset"])


def _address(text: str) -> Address:
    try:
        return address(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--control") from None


# -- telling -----------------------------------------------------------------------------------------------------------


def _held(said: Mapping[str, Any]) -> Iterator[str]:
    if "counter" not in said:
        yield _nothing(said)
        return
    yield f"{_rule(said)}, counted as {shown(said['counter'])}"
    for held in said["limits"]:
        used, left = held["used"], held["remaining"]
        over = ", over" if held["over"] else ""
        yield f"  {words(_limit(held))}: {used} used, {left} remaining{over}, as new in {_seconds(held['reset_us'])}"


def _nothing(said: Mapping[str, Any]) -> str:
    if not said["domain_known"]:
        return f"no file configures the domain {shown(said['domain'])}: nothing is counted"
    if said["rule"] is not None:
        return f"{_rule(said)} is unlimited: nothing is counted"
    return "no rule is for this descriptor: nothing is counted; `edgekeeper ratelimit explain` says why"


def _rule(said: Mapping[str, Any]) -> str:
    return shown(f"{said['domain']} {said['rule']}")


def _limit(held: Mapping[str, Any]) -> Limit:
    unit = Unit(held["unit"]) if held["unit"] is not None else None
    return Limit(
        held["requests_per_unit"],
        unit,
        held["window_us"],
        held["name"],
        Algorithm(held["algorithm"]),
        held["burst"],
    )


def _seconds(us: int) -> str:
    return span(-(-us // 1_000_000) * 1_000_000)


def _table(report: Report) -> Iterator[str]:
    if not report.keys:
        yield f"no key to show, of {counted(report.total, 'hit')}"
        return
    rows = [("HITS", "OR UP TO", "REFUSED", "DOMAIN", "RULE", "ENTRIES"), *map(_row, report.keys)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        numbers = [row[column].rjust(widths[column]) for column in range(3)]
        names = [row[column].ljust(widths[column]) for column in range(3, 5)]
        yield "  ".join((*numbers, *names, row[5]))
    yield f"of {counted(report.total, 'hit')}; no other key had more than {report.left_out}"


def _row(heavy: Heavy) -> tuple[str, ...]:
    return (
        str(heavy.hits),
        str(heavy.hits + heavy.missing),
        f"{100 * heavy.refused / heavy.seen:.0f}%",
        shown(heavy.domain),
        shown(heavy.rule),
        shown(", ".join(heavy.entries)),
    )
