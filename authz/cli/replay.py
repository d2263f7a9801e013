"""`edgekeeper authz replay`: yesterday's decisions by other documents. Root."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import Final

import click

from authz.config import AuthzSection
from authz.log_files import Lines, files_of
from authz.replay import KINDS, Count, Replay
from authz.retold import Verdict
from edgekeeper.commands import config_option, echo_json, exits, format_option
from edgekeeper.errors import OperatorError
from edgekeeper.printable import shown
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources

__all__ = ["command"]

_PROGRESS_LINES: Final = 2000
_TITLES: Final = {
    "effect": "answered otherwise",
    "rule": "the same answer, by another rule or for another reason",
    "shadow": "the same answer; what rules in shadow would do is another",
}


@click.command("replay")
@click.argument("logs", nargs=-1, metavar="[LOG]...")
@config_option
@click.option(
    "--candidate",
    metavar="FILE",
    help="The edgekeeper.yaml whose documents decide. Default: that of --config.",
)
@click.option("--strict", is_flag=True, help="Exit 1 also when it cannot be told of a decision.")
@format_option
def command(
    logs: tuple[str, ...],
    config: str | None,
    candidate: str | None,
    strict: bool,  # noqa: FBT001
    format_: str,
) -> None:
    """Decide what stands in decision logs again, and say which decisions would change.

    LOG is a file of the decision log, plain, .zst or .gz, `-` for standard input; default: the log of --config with
    all that was rotated of it. The caller of each decision is whom the service found then. A decision that depends on
    something that its line does not show is counted by what is missing, never guessed.

    Exits 0 when nothing changes, 1 when something does, 2 when documents or logs cannot be read, or a LOG is none.

    \b
    Example:  edgekeeper authz replay --candidate new/edgekeeper.yaml logs/decisions.ndjson
    """
    from authz.__main__ import SERVICE

    with exits(config_error=2, format_=format_):
        section = load(candidate or config).section(SERVICE.name)
        replay = Replay(SERVICE.build(section, DiskSources()))
        files = list(logs) or _own(load(config).section(SERVICE.name))
        with ExitStack() as opened:
            _feed(replay, [opened.enter_context(closing(Lines(file))) for file in files])
        if not replay.lines and (left_out := replay.torn + replay.foreign):
            raise OperatorError(f"none of {left_out:,} lines is of a decision log: {', '.join(files)}")
        echo_json(replay.plain()) if format_ == "json" else _echo(replay)
        sys.exit(1 if replay.changes or (strict and replay.untold) else 0)


def _own(section: AuthzSection) -> list[str]:
    if section.decision_log is None:
        raise OperatorError("no LOG is named, and the configuration has no `authz.decision_log`")
    files = files_of(section.decision_log.file.path)[::-1]
    if not files:
        raise OperatorError(f"there is no decision log yet: {section.decision_log.file.path}")
    return files


def _feed(replay: Replay, logs: Iterable[Lines]) -> None:
    shows = sys.stderr.isatty()
    for lines in logs:
        for number, record in enumerate(lines):
            replay.take(record)
            if shows and number % _PROGRESS_LINES == 0:
                click.echo(f"\r{replay.lines:,} lines", nl=False, err=True)
        replay.torn += lines.torn
        replay.foreign += lines.foreign
    if shows:
        click.echo("\r\x1b[K", nl=False, err=True)


def _echo(replay: Replay) -> None:
    total = Count(replay.lines, replay.decisions)
    click.echo(f"decided again by generation {replay.generation}: {_counted(total)}")
    click.echo(f"unchanged: {_counted(replay.same)}")
    for kind in KINDS:
        changes = replay.of_kind(kind)
        if changes:
            click.echo(f"\n{_TITLES[kind]}:")
        for change, count in changes:
            click.echo(f"  {_said(change.before)} -> {_said(change.after)}: {_counted(count)}")
            for line in _shadows(change.before, change.after):
                click.echo(f"    {line}")
            click.echo(f"    as in {shown(', '.join(count.examples))}")
    if replay.untold:
        click.echo("\ncannot be told, for the log does not show:")
    for missing, count in replay.cannot_tell():
        click.echo(f"  {shown(missing)}: {_counted(count)}, as in {shown(', '.join(count.examples))}")
    for number, what in ((replay.torn, "torn or unreadable"), (replay.foreign, "of another schema")):
        if number:
            click.echo(f"\nleft out: {number:,} {'line' if number == 1 else 'lines'} {what}")


def _counted(count: Count) -> str:
    lines = f"{count.lines:,} {'line' if count.lines == 1 else 'lines'}"
    return lines if count.lines == count.decisions else f"{lines} for about {count.decisions:,} decisions"


def _said(verdict: Verdict) -> str:
    by = " / ".join(each for each in (verdict.policy, verdict.rule) if each) or "no policy"
    return shown(f"{verdict.effect} by {by} ({verdict.reason})")


def _shadows(before: Verdict, after: Verdict) -> Iterator[str]:
    for when, entries, others in (
        ("no longer", before.shadow, after.shadow),
        ("now", after.shadow, before.shadow),
    ):
        for policy, rule, effect, reason in entries:
            if (policy, rule, effect, reason) not in others:
                yield shown(f"{when} in shadow: {effect} by {policy} / {rule or 'no rule'} ({reason})")
