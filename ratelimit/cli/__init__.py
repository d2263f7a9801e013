"""The subcommands of ratelimit, a module each. Root."""

import click

from edgekeeper.commands import HELP
from ratelimit.cli import check, counters, explain, test

__all__ = ["commands"]


@click.group(
    "ratelimit",
    epilog="Example: edgekeeper ratelimit explain --domain edge --descriptor tenant=acme",
    context_settings=HELP,
)
def commands() -> None:
    """Limits: check the files, run their tests, explain what a descriptor finds, look at counters and reset them."""


for _module in (check, counters, explain, test):
    commands.add_command(_module.command)
