"""`edgekeeper ratelimit check`: every mistake in every file of limits, and what is probably not meant. Root."""

import sys
from collections.abc import Iterator, Sequence

import click

from edgekeeper.commands import (
    annotation,
    check_format_option,
    config_option,
    counted,
    echo_json,
    exits,
    plain,
)
from edgekeeper.config import validated
from edgekeeper.errors import ConfigError
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources, Sources
from edgekeeper.yaml import Document
from ratelimit.config import RatelimitSection
from ratelimit.descriptor import Shape, shape_of
from ratelimit.documents import read
from ratelimit.domain import Domain
from ratelimit.generation import Limits
from ratelimit.limit import Rule
from ratelimit.lint import Finding, findings
from ratelimit.models import TestsFile
from ratelimit.reading import documents_of_limits, documents_of_tests

__all__ = ["command"]


@click.command("check")
@config_option
@check_format_option
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@click.option(
    "--descriptor",
    "descriptors",
    multiple=True,
    metavar="KEY[=VALUE],...",
    help="The entries of a descriptor that Envoy sends, in their order; a key alone stands for any value. Once for each"
    " descriptor of Envoy's configuration: then limits that none of them reaches are told.",
)
@click.option("--domain", help="The domain of the descriptors. Needed where there are several.")
def command(
    config: str | None,
    format_: str,
    strict: bool,  # noqa: FBT001
    descriptors: tuple[str, ...],
    domain: str | None,
) -> None:
    """Check the section `ratelimit` and every file of limits; print all mistakes, and warnings of what is probably not meant.

    Exits 0 when nothing is wrong, 1 when something is (with --strict: or when there is a warning), 2 when there is
    nothing to read.

    \b
    Example:  edgekeeper ratelimit check --descriptor tenant --descriptor tenant,path=/login
    """
    from ratelimit.__main__ import SERVICE

    shapes = [_shape(text) for text in descriptors]
    with exits(format_=format_, beside={"warnings": []}):
        section, sources = load(config).section(SERVICE.name), DiskSources()
        limits = SERVICE.generation(section, sources)
        asked = {_domain(domain, limits): shapes} if shapes or domain is not None else {}
        found = findings(
            [(read(each), each) for each in documents_of_limits(section, sources)[0]],
            list(_tests(section, sources)),
            limits.domains,
            asked if shapes else {},
        )
        _tell(limits, found, format_)
        sys.exit(1 if strict and found else 0)


def _shape(text: str) -> Shape:
    try:
        return shape_of(text)
    except ValueError:
        message = "entries are written KEY or KEY=VALUE, with commas between them"
        raise click.BadParameter(message, param_hint="--descriptor") from None


def _domain(name: str | None, limits: Limits) -> str:
    if name is None and len(limits.domains) == 1:
        return next(iter(limits.domains))
    if name is None or name not in limits.domains:
        known = ", ".join(sorted(limits.domains))
        raise click.BadParameter(f"one of these is needed: {known}", param_hint="--domain")
    return name


def _tests(section: RatelimitSection, sources: Sources) -> Iterator[tuple[TestsFile, Document]]:
    for _, document in documents_of_tests(section, sources):
        if isinstance(document, ConfigError):  # the file was in order a moment ago
            raise document
        yield validated(TestsFile, document), document


def _tell(limits: Limits, found: Sequence[Finding], format_: str) -> None:
    rules = sum(1 for domain in limits.domains.values() for _ in _rules(domain))
    if format_ == "json":
        warnings = [{"name": each.name, **plain(each.problem)} for each in found]
        about = {"domains": sorted(limits.domains), "rules": rules, "generation": limits.generation}
        echo_json({"problems": [], "warnings": warnings, **about})
        return
    for each in found:
        if format_ == "github":
            click.echo(annotation(each.problem, "warning", each.name))
        else:
            click.echo(f"{each.problem} [{each.name}]", err=True)
    counts = [counted(len(limits.domains), "domain"), counted(rules, "rule")]
    counts += [counted(len(found), "warning")] if found else []
    click.echo(f"good: {', '.join(counts)}, generation {limits.generation}")


def _rules(domain: Domain) -> Iterator[Rule]:
    waiting = [domain.root]
    while waiting:
        for node in waiting.pop().nodes.values():
            if node.rule is not None:
                yield node.rule
            if node.children is not None:
                waiting.append(node.children)
