"""`edgekeeper ratelimit explain`: what a request finds, step by step. Root."""

import sys
from collections.abc import Iterator

import click

from edgekeeper.commands import config_option, echo_json, format_option, loaded
from edgekeeper.printable import shown
from ratelimit.descriptor import Entries, entries_of
from ratelimit.explanation import DescriptorTold, Explanation, RuleTold, explanation

__all__ = ["command"]


@click.command("explain")
@config_option
@format_option
@click.option("--domain", required=True, help="The domain, as in Envoy's filter.")
@click.option(
    "--descriptor",
    "descriptors",
    required=True,
    multiple=True,
    metavar="KEY=VALUE,KEY=VALUE",
    help="The entries of one descriptor in their order; a comma in a value is written `\\,`. Once for each descriptor"
    " of the request.",
)
def command(config: str | None, format_: str, domain: str, descriptors: tuple[str, ...]) -> None:
    """Say step by step which limit each descriptor of a request finds, or why none.

    Nothing is counted. Exits 0 when a rule holds for one of them, 1 when none does.

    \b
    Example:  edgekeeper ratelimit explain --domain edge --descriptor tenant=acme,path=/login
    """
    from ratelimit.__main__ import SERVICE

    asked = [_entries(text) for text in descriptors]
    told = explanation(loaded(SERVICE, config, format_)[1], domain, asked)
    if format_ == "json":
        echo_json(told)
    else:
        for line in _lines(told):
            click.echo(shown(line))
    sys.exit(0 if any(each.rule is not None for each in told.descriptors) else 1)


def _entries(text: str) -> Entries:
    try:
        return entries_of(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--descriptor") from None


_HOW = {
    "value": "finds `{node}` by its value",
    "wildcard": "finds `{node}` by its wildcard",
    "key": "finds `{node}` by the key alone",
    "none": "finds nothing here",
}


def _lines(told: Explanation) -> Iterator[str]:
    many = len(told.descriptors) > 1
    for number, descriptor in enumerate(told.descriptors, start=1):
        if many:
            yield f"descriptor {number}:"
        for line in _of_descriptor(descriptor):
            yield f"  {line}" if many else line
    for group in told.together:
        if len(group) > 1:
            listed = ", ".join(map(str, group))
            yield f"all or nothing: when one of the descriptors {listed} is refused, none of them takes anything"


def _of_descriptor(descriptor: DescriptorTold) -> Iterator[str]:
    for number, step in enumerate(descriptor.steps, start=1):
        yield f"{number}. {step.key}={step.value} {_HOW[step.how].format(node=step.node)}"
        for near in step.passed_by:
            yield f"   `{near.node}` was not taken: {near.why}"
    yield descriptor.why
    if descriptor.rule is not None:
        yield from _of_rule(descriptor.rule)


def _of_rule(rule: RuleTold) -> Iterator[str]:
    if rule.unlimited:
        yield "unlimited: nothing is counted"
    for counter in rule.counters:
        name = f", named `{counter.limit_name}`" if counter.limit_name else ""
        yield f"{counter.words}{name}; counted as {counter.name} {counter.code}"
    yield from rule.notes
