"""The commands `edgekeeper ratelimit ...`. Root."""

import sys
from collections.abc import Iterator
from typing import Any, Final

import click

from edgekeeper.commands import (
    HELP,
    check_format_option,
    config_option,
    counted,
    echo_json,
    exits,
    format_option,
    loaded,
    report_problems,
)
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources
from ratelimit.descriptor import Entries
from ratelimit.domain import Domain, Step
from ratelimit.generation import Limits
from ratelimit.key import counter_key
from ratelimit.limit import Rule
from ratelimit.trials import trials

__all__ = ["commands"]


@click.group(
    name="ratelimit",
    epilog="Example: edgekeeper ratelimit explain --domain edge --descriptor tenant=acme",
    context_settings=HELP,
)
def commands() -> None:
    """Limits: check the files, run their tests, explain what a descriptor finds."""


@commands.command()
@config_option
@check_format_option
def check(config: str | None, format_: str) -> None:
    """Check the section `ratelimit` and every file of limits; print all mistakes.

    Exits 0 when all is good, 1 when something is wrong, 2 when there is nothing to read.

    \b
    Example:  edgekeeper ratelimit check --config edgekeeper.yaml
    """
    limits = _limits(config, format_)
    rules = sum(1 for domain in limits.domains.values() for _ in _rules(domain))
    if format_ == "json":
        report_problems(
            (), format_, domains=sorted(limits.domains), rules=rules, generation=limits.generation
        )
    else:
        found_in = f"{counted(len(limits.domains), 'domain')}, {counted(rules, 'rule')}"
        click.echo(f"good: {found_in}, generation {limits.generation}")


@commands.command()
@config_option
@format_option
@click.option("--domain", required=True, help="The domain, as in Envoy's filter.")
@click.option(
    "--descriptor",
    "descriptor",
    required=True,
    metavar="KEY=VALUE,KEY=VALUE",
    help="The entries of one descriptor in their order; a comma in a value is written `\\,`.",
)
def explain(config: str | None, format_: str, domain: str, descriptor: str) -> None:
    """Say step by step which limit a descriptor finds, or why none.

    Exits 0 when a rule holds, 1 when none does.

    \b
    Example:  edgekeeper ratelimit explain --domain edge --descriptor tenant=acme,path=/login
    """
    entries = _entries(descriptor)
    limits = _limits(config, format_)
    explanation = _explanation(limits, domain, entries)
    if format_ == "json":
        echo_json(explanation)
    else:
        for line in _lines(explanation):
            click.echo(line)
    sys.exit(0 if explanation["rule"] is not None else 1)


@commands.command()
@config_option
@format_option
def test(config: str | None, format_: str) -> None:
    """Run the tests beside the limits (`NAME_test.yaml`), and print each.

    Exits 0 when all come true, 1 when one fails or the limits are wrong, 2 when there is nothing to read.

    \b
    Example:  edgekeeper ratelimit test --config edgekeeper.yaml
    """
    from ratelimit.__main__ import build

    with exits(format_=format_):
        section, sources = load(config).section("ratelimit"), DiskSources()
        tried = list(trials(section, build(section, sources), sources))
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


def _limits(config: str | None, format_: str) -> Limits:
    from ratelimit.__main__ import SERVICE

    generation = loaded(SERVICE, config, format_)[1]
    assert isinstance(generation, Limits)
    return generation


def _entries(text: str) -> Entries:
    """Return the entries in `k=v,k2=v2`; a backslash takes the next character as it is."""
    parts, escaped = [""], False
    for character in text:
        if escaped or character not in "\\,":
            parts[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            parts.append("")
    pairs = [part.partition("=") for part in parts]
    if not all(separator and key for key, separator, _ in pairs):
        raise click.BadParameter("entries are written KEY=VALUE,KEY=VALUE", param_hint="--descriptor")
    return tuple((key, value) for key, _, value in pairs)


def _explanation(limits: Limits, name: str, entries: Entries) -> dict[str, Any]:
    domain = limits.domains.get(name)
    steps = list(domain.steps(entries)) if domain is not None else []
    rule = domain.match(entries) if domain is not None else None
    return {
        "domain": name,
        "domain_known": domain is not None,
        "steps": [
            {"key": s.entry[0], "value": s.entry[1], "how": s.how, "node": s.node or None} for s in steps
        ],
        "rule": _rule(rule, name, entries) if rule is not None else None,
        "why": _why(domain, steps, entries, rule),
    }


def _rule(rule: Rule, domain: str, entries: Entries) -> dict[str, Any]:
    limit = rule.limit
    modes = [mode for mode in ("shadow_mode", "quota_mode") if getattr(rule, mode)]
    if limit is None:
        return {"label": rule.label, "unlimited": True, "modes": modes}
    return {
        "label": rule.label,
        "name": limit.name,
        "requests_per_unit": limit.requests_per_unit,
        "unit": limit.unit.value,
        "modes": modes,
        "counter": counter_key(domain, limit.unit, entries, rule),
    }


_HOW: Final = {
    "value": "finds `{node}` by its value",
    "wildcard": "finds `{node}` by its wildcard",
    "key": "finds `{node}` by the key alone",
    "none": "finds nothing here",
}


def _why(domain: Domain | None, steps: list[Step], entries: Entries, rule: Rule | None) -> str:
    """Return the reason for the walk's end in one sentence."""
    if domain is None:
        return "no file configures this domain: nothing limits"
    last = steps[-1]
    if rule is not None:
        return "the last entry's node has a rate_limit"
    if last.how == "none":
        return f"no node for this entry at this level, and the walk never goes back: no limit; nodes here: {_some(last.neighbours)}"
    if len(steps) < len(entries):
        return f"`{last.node}` has no descriptors below it, but the request has more entries: no limit"
    if last.has_children:
        return f"`{last.node}` has no rate_limit of its own, only descriptors below it: no limit"
    return f"`{last.node}` has no rate_limit: no limit"


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _lines(explanation: dict[str, Any]) -> Iterator[str]:
    for number, step in enumerate(explanation["steps"], start=1):
        yield f"{number}. {step['key']}={step['value']} {_HOW[step['how']].format(node=step['node'])}"
    yield explanation["why"]
    rule = explanation["rule"]
    if rule is None:
        return
    modes = f" ({', '.join(rule['modes'])})" if rule["modes"] else ""
    if rule.get("unlimited"):
        yield f"unlimited{modes}"
    else:
        name = f", named `{rule['name']}`" if rule["name"] else ""
        yield f"{rule['requests_per_unit']} per {rule['unit']}{name}{modes}, counted as {rule['counter']}"


def _rules(domain: Domain) -> Iterator[Rule]:
    waiting = [domain.root]
    while waiting:
        for node in waiting.pop().nodes.values():
            if node.rule is not None:
                yield node.rule
            if node.children is not None:
                waiting.append(node.children)
