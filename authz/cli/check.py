"""`edgekeeper authz check`: every mistake in every policy document, and what is probably not meant. Root."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePath

import click

from authz.cli.read import documents
from authz.config import AuthzSection
from authz.lint import Checked, Finding, findings
from authz.policy import Policies
from authz.reading import MODELS
from edgekeeper.commands import (
    annotation,
    check_format_option,
    config_option,
    counted,
    echo_json,
    exits,
    plain,
)
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources, Sources

__all__ = ["command"]


@click.command("check")
@config_option
@check_format_option
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
def command(config: str | None, format_: str, strict: bool) -> None:  # noqa: FBT001
    """Check every policy document; print all mistakes, and warnings of what is probably not meant.

    Exits 0 when nothing is wrong, 1 when something is (with --strict: or when there is a warning), 2 when there is
    nothing to read.

    \b
    Example:  edgekeeper authz check --config edgekeeper.yaml --strict --format github
    """
    from authz.__main__ import SERVICE

    with exits(format_=format_, beside={"warnings": []}):
        section, sources = load(config).section(SERVICE.name), DiskSources()
        policies = SERVICE.generation(section, sources)
        found = findings(_checked(section, sources))
        _tell(policies, found, format_)
        sys.exit(1 if strict and found else 0)


def _checked(section: AuthzSection, sources: Sources) -> Iterator[Checked]:
    for document, text in documents(section, sources):
        model = MODELS[document.value["kind"]]
        context = {"base": PurePath(document.file).parent}
        yield Checked(model.model_validate(document.value, context=context), document, text)


def _tell(policies: Policies, found: Sequence[Finding], format_: str) -> None:
    rules = sum(len(policy.rules) for policy in policies.by_name.values()) + len(policies.rails)
    if format_ == "json":
        about = {"policies": sorted(policies.by_name), "rules": rules, "generation": policies.generation}
        warnings = [{"name": each.name, **plain(each.problem)} for each in found]
        echo_json({"problems": [], "warnings": warnings, **about})
        return
    for each in found:
        if format_ == "github":
            click.echo(annotation(each.problem, "warning", each.name))
        else:
            click.echo(f"{each.problem} [{each.name}]", err=True)
    counts = [counted(len(policies.by_name), "policy", "policies"), counted(rules, "rule")]
    counts += [counted(len(found), "warning")] if found else []
    click.echo(f"good: {', '.join(counts)}, generation {policies.generation}")
