"""`edgekeeper authz check`: every mistake in every policy document, and what is probably not meant. Root."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import click

from authz.config import AuthzSection
from authz.lint import Checked, Finding, findings
from authz.policy import Policies
from authz.reading import MODELS, is_test
from edgekeeper.commands import (
    annotation,
    check_format_option,
    config_option,
    echo_json,
    exits,
    loaded,
)
from edgekeeper.sources import DiskSources
from edgekeeper.yaml import parse

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

    section, policies = loaded(SERVICE, config, format_)
    with exits(format_=format_):
        found = findings(_documents(section))
        _tell(policies, found, format_)
        sys.exit(1 if strict and found else 0)


def _documents(section: AuthzSection) -> Iterator[Checked]:
    """Yield the documents, which have just been found good."""
    sources = DiskSources()
    for entry in section.policies:
        for file in sources.yaml_files(entry.path):
            if is_test(file):
                continue
            content = sources.read(file)
            for document in parse(content, file):
                if document.value is not None:
                    model = MODELS[document.value["kind"]]
                    base = {"base": PurePath(file).parent}
                    yield Checked(
                        model.model_validate(document.value, context=base), document, content.decode()
                    )


def _tell(policies: Policies, found: Sequence[Finding], format_: str) -> None:
    rails = {(rule.owner, rule.id) for _, each in policies.guardrails.items() for rule in each.rules}
    rules = sum(len(policy.rules) for policy in policies.by_name.values()) + len(rails)
    if format_ == "json":
        about = {"policies": sorted(policies.by_name), "rules": rules, "generation": policies.generation}
        echo_json({"problems": [], "warnings": [_plain(each) for each in found], **about})
        return
    for each in found:
        if format_ == "github":
            click.echo(annotation(each.problem, "warning", each.name))
        else:
            click.echo(f"{each.problem} [{each.name}]", err=True)
    counts = [_counted(len(policies.by_name), "policy", "policies"), _counted(rules, "rule", "rules")]
    counts += [_counted(len(found), "warning", "warnings")] if found else []
    click.echo(f"good: {', '.join(counts)}, generation {policies.generation}")


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _plain(finding: Finding) -> dict[str, Any]:
    fields = ("file", "line", "column", "message", "hint")
    return {"name": finding.name, **{field: getattr(finding.problem, field) for field in fields}}
