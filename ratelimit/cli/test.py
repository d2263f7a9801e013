"""`edgekeeper ratelimit test`: the tests beside the limits. Root."""

import sys

import click

from edgekeeper.commands import config_option, counted, echo_json, exits, format_option, report_problems
from edgekeeper.errors import OperatorError
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources
from ratelimit.trials import trials

__all__ = ["command"]


@click.command("test")
@config_option
@format_option
def command(config: str | None, format_: str) -> None:
    """Run the tests beside the limits (`NAME_test.yaml`), and print each.

    Exits 0 when all come true, 1 when one fails or the limits are wrong, 2 when there is nothing to read, or no case to run.

    \b
    Example:  edgekeeper ratelimit test --config edgekeeper.yaml
    """
    from ratelimit.__main__ import SERVICE, build

    with exits(format_=format_):
        section, sources = load(config).section(SERVICE.name), DiskSources()
        tried = list(trials(section, build(section, sources), sources))
        if not tried:
            raise OperatorError(
                "there is no case to run: tests stand beside the limits, in files whose names end in `_test.yaml`"
            )
        if format_ == "json":
            echo_json({"cases": tried})
        else:
            for trial in tried:
                click.echo(
                    f"{'FAILED' if trial.problems else 'ok'}  {trial.file}: {trial.name or 'not a test'}"
                )
                report_problems(trial.problems)
            failed = sum(1 for trial in tried if trial.problems)
            click.echo(f"{counted(len(tried), 'case')}, {failed} failed")
        sys.exit(1 if any(trial.problems for trial in tried) else 0)
