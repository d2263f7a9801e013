"""`edgekeeper authz check`: every mistake in every policy document. Root."""

import click

from edgekeeper.commands import config_option, echo_json, format_option, loaded

__all__ = ["command"]


@click.command("check")
@config_option
@format_option
def command(config: str | None, format_: str) -> None:
    """Check every policy document; print all mistakes.

    Exits 0 when all is good, 1 when something is wrong, 2 when there is nothing to read.

    \b
    Example:  edgekeeper authz check --config edgekeeper.yaml
    """
    from authz.__main__ import SERVICE

    _, policies = loaded(SERVICE, config, format_)
    rules = sum(len(policy.rules) for policy in policies.by_name.values())
    if format_ == "json":
        found = {"policies": sorted(policies.by_name), "rules": rules, "generation": policies.generation}
        echo_json({"problems": [], **found})
    else:
        count = len(policies.by_name)
        counted = f"{count} {'policy' if count == 1 else 'policies'}"
        click.echo(f"good: {counted}, {rules} rules, generation {policies.generation}")
