"""The subcommands of authz, a module each. Root."""

import click

from authz.cli import check, explain
from edgekeeper.commands import HELP

__all__ = ["commands"]


@click.group("authz", context_settings=HELP)
def commands() -> None:
    """External authorization: check policies and explain decisions.

    \b
    Example:  edgekeeper authz explain GET https://api.example.com/v1/orders
    """


for _module in (check, explain):
    commands.add_command(_module.command)
