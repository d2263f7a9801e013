"""`edgekeeper authz test`: the tests beside the documents, what an attacker would make of them, and what they leave untested. Root."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

from authz.abuse import Abuse, Finding
from authz.attempts import enforced
from authz.mutations import Cases, Mutation, Passed, mutations
from authz.policy import Policies
from authz.trials import Trial, trials
from edgekeeper.commands import (
    annotation,
    check_format_option,
    config_option,
    echo_json,
    exits,
)
from edgekeeper.errors import Problem
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources

__all__ = ["command"]


@dataclass(frozen=True, slots=True)
class _Result:
    """Everything that came of a run. `rules`: document and id of every rule; `matched`: of those that a case matched."""

    trials: Sequence[Trial]
    rules: Sequence[tuple[str, str]]
    matched: frozenset[tuple[str, str]]
    abused: Sequence[tuple[Trial, Finding]]
    mutations: int
    survivors: Sequence[Mutation]

    @property
    def uncovered(self) -> list[tuple[str, str]]:
        """The rules that no case matched."""
        return [each for each in self.rules if each not in self.matched]

    @property
    def percent(self) -> float:
        """Of the rules that are covered; without any rule, all are."""
        return 100 * (1 - len(self.uncovered) / len(self.rules)) if self.rules else 100.0

    @property
    def failed(self) -> int:
        """How many cases failed, or could not be tried."""
        return sum(1 for each in self.trials if each.problems)


@click.command("test")
@config_option
@check_format_option
@click.option(
    "--abuse",
    type=click.Choice(["auto", "off"]),
    default=None,
    help="Whether to send each case as an attacker would. Default: as each document says.",
)
@click.option(
    "--mutate", is_flag=True, help="Also make each rule wrong in turn, and name what no test notices."
)
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 100),
    default=0.0,
    show_default=True,
    metavar="PERCENT",
    help="Fail if fewer of the rules are matched by a case.",
)
def command(
    config: str | None,
    format_: str,
    abuse: str | None,
    mutate: bool,  # noqa: FBT001
    min_coverage: float,
) -> None:
    """Run the tests beside the documents (`NAME_test.yaml`), and say which rules no case matches.

    Exits 0 when all is as expected, 1 when a case fails, an abuse succeeds, a mutation stays unnoticed (--mutate) or too
    few rules are covered (--min-coverage), 2 when there is nothing to read.

    \b
    Example:  edgekeeper authz test --config edgekeeper.yaml --mutate --min-coverage 100
    """
    from authz.__main__ import SERVICE, build

    with exits(format_=format_):
        section, sources = load(config).section(SERVICE.name), DiskSources()
        policies = enforced(build(section, sources))
        tried = list(trials(section, policies, sources))
        result = _result(policies, tried, abuse=abuse, mutate=mutate)
        _tell(result, format_, mutate=mutate)
        enough = result.percent >= min_coverage
        if not enough:
            click.echo(f"coverage is below {min_coverage:g} %", err=True)
        sys.exit(1 if result.failed or result.abused or result.survivors or not enough else 0)


def _result(policies: Policies, tried: Sequence[Trial], *, abuse: str | None, mutate: bool) -> _Result:
    rules = [(rule.owner, rule.id) for policy in policies.by_name.values() for rule in policy.rules]
    rails = (rule for _, rail in policies.guardrails.items() for rule in rail.rules)
    rules += dict.fromkeys((rule.owner, rule.id) for rule in rails)
    matched = frozenset(each for trial in tried if trial.tried is not None for each in trial.tried.matched)
    made = list(mutations(policies, policies.by_name)) if mutate else []
    cases = Cases(policies, _passed(tried))
    return _Result(
        trials=tried,
        rules=rules,
        matched=matched,
        abused=list(_abused(policies, tried, abuse)),
        mutations=len(made),
        survivors=[each for each in made if not cases.notice(each)],
    )


def _abused(policies: Policies, tried: Iterable[Trial], abuse: str | None) -> Iterator[tuple[Trial, Finding]]:
    """Yield what the abuse of each case found that came true as it is."""
    made: dict[int, Abuse] = {}
    for trial in tried:
        suite = trial.suite
        if suite is None or trial.tried is None or trial.problems or (abuse or suite.spec.abuse) == "off":
            continue
        if id(suite) not in made:
            made[id(suite)] = Abuse(policies, suite.spec.policy, suite.callers)
        case = suite.spec.cases[trial.index]
        for finding in made[id(suite)].findings(trial.tried.attempt, case.as_):
            yield trial, finding


def _passed(tried: Iterable[Trial]) -> Iterator[Passed]:
    """Yield the cases that came true."""
    for trial in tried:
        if trial.suite is not None and trial.tried is not None and not trial.problems:
            yield Passed(trial.suite.spec.cases[trial.index].expect, trial.tried)


# -- telling ----------------------------------------------------------------------------------------------------------


def _tell(result: _Result, format_: str, *, mutate: bool) -> None:
    if format_ == "json":
        echo_json(_plain(result, mutate=mutate))
        return
    for problem in _problems(result):
        if format_ == "github":
            click.echo(annotation(problem))
        else:
            click.echo(str(problem), err=True)
    for document, rule in result.uncovered:
        click.echo(f"not covered: {document}/{rule}")
    for survivor in result.survivors:
        click.echo(f"not noticed: {survivor}")
    click.echo(_summary(result, mutate=mutate))


def _problems(result: _Result) -> Iterator[Problem]:
    for trial in result.trials:
        yield from trial.problems
    for trial, finding in result.abused:
        yield _problem(trial, finding)


def _problem(trial: Trial, finding: Finding) -> Problem:
    """Return the finding as a problem at its case."""
    assert trial.suite is not None
    case = trial.suite.spec.cases[trial.index]
    more = f" (and {finding.more} more like it)" if finding.more else ""
    message = f"`{case.name}`: {finding.kind}: {finding.what}: {finding.wrong}{more}"
    return trial.suite.document.problem(("spec", "cases", trial.index, "request"), message)


def _summary(result: _Result, *, mutate: bool) -> str:
    covered = len(result.rules) - len(result.uncovered)
    parts = [
        f"{_counted(len(result.trials), 'case')}, {result.failed} failed",
        f"{covered} of {_counted(len(result.rules), 'rule')} covered",
        f"{_counted(len(result.abused), 'abuse')} succeeded" if result.abused else "no abuse succeeded",
    ]
    if mutate:
        parts.append(f"{len(result.survivors)} of {_counted(result.mutations, 'mutation')} not noticed")
    return "; ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(result: _Result, *, mutate: bool) -> dict[str, Any]:
    fields = ("file", "line", "column", "message", "hint")
    return {
        "cases": [
            {
                "file": each.file,
                "name": each.name,
                "problems": [{field: getattr(one, field) for field in fields} for one in each.problems],
            }
            for each in result.trials
        ],
        "coverage": {
            "percent": round(result.percent, 1),
            "rules": len(result.rules),
            "uncovered": [{"document": document, "rule": rule} for document, rule in result.uncovered],
        },
        "abuse": [
            {
                "file": trial.file,
                "case": trial.name,
                "class": finding.kind,
                "request": finding.what,
                "wrong": finding.wrong,
                "more": finding.more,
            }
            for trial, finding in result.abused
        ],
        "mutations": {
            "tried": result.mutations,
            "unnoticed": [
                {
                    "document": each.document,
                    "rule": each.rule.id if each.rule is not None else None,
                    "mutation": each.what,
                }
                for each in result.survivors
            ],
        }
        if mutate
        else None,
    }
