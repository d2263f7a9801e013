"""The subcommands of authz, a module each. Root."""

import click

from authz.cli import api_key, check, explain, replay, test
from edgekeeper.commands import HELP

__all__ = ["commands"]


@click.group("authz", context_settings=HELP)
def commands() -> None:
    """External authorization: check policies and explain decisions.

    \b
    Example:  edgekeeper authz explain GET https://api.example.com/v1/orders
    """


for _module in (api_key, check, explain, replay, test):
    commands.add_command(_module.command)
