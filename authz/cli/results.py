"""What came of a run of `edgekeeper authz test`, and how it is told: to people, to programs, on GitHub. Root."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from authz.abuse import Abused, Finding
from authz.mutations import Mutation
from authz.trials import Trial
from edgekeeper.commands import counted, echo_json, plain, report_problems
from edgekeeper.errors import Problem
from edgekeeper.yaml import Document

__all__ = ["Result", "tell"]


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that came of a run.

    `rules`: document and id of every rule; `matched`: of those that a case matched; `min_coverage`: in percent.
    `abused`: the cases that were sent as an attacker would; None: abuse is off. `mutations`: how many were tried; None:
    they were not asked for.
    """

    trials: Sequence[Trial]
    rules: Sequence[tuple[str, str]]
    matched: frozenset[tuple[str, str]]
    min_coverage: float
    abused: Sequence[tuple[Trial, Abused]] | None
    mutations: int | None
    survivors: Sequence[Mutation]

    @property
    def uncovered(self) -> list[tuple[str, str]]:
        """The rules that no case matched."""
        return [each for each in self.rules if each not in self.matched]

    @property
    def percent(self) -> float:
        """Of the rules that are covered; without any rule, all are."""
        covered = len(self.rules) - len(self.uncovered)
        return 100 * covered / len(self.rules) if self.rules else 100.0

    @property
    def enough(self) -> bool:
        """Whether as many rules are covered as there should be."""
        return self.percent >= self.min_coverage

    @property
    def failed(self) -> int:
        """How many cases failed, or could not be tried."""
        return sum(1 for each in self.trials if each.problems)

    @property
    def findings(self) -> list[tuple[Trial, Finding]]:
        """The abuses that succeeded, each with its case."""
        return [(trial, found) for trial, abused in self.abused or () for found in abused.findings]

    @property
    def unplaced(self) -> list[tuple[Trial, str]]:
        """The cases whose credential was not placed elsewhere, and why."""
        return [(trial, abused.unplaced) for trial, abused in self.abused or () if abused.unplaced]

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return self.enough and not (self.failed or self.findings or self.survivors)


def tell(result: Result, format_: str, documents: Iterable[Document]) -> None:
    """Print the result. `documents` are those in which rules stand, for annotations of what nothing noticed."""
    if format_ == "json":
        echo_json(_plain(result))
        return
    below = f"coverage is {result.percent:.4g} %, below {result.min_coverage:g} %"
    if format_ == "github":
        named = {(each.value["kind"], each.value["metadata"]["name"]): each for each in documents}
        unnoticed = [_at_rule(each, named) for each in result.survivors]
        low = [] if result.enough else [Problem("", 0, 0, below)]
        report_problems([*_problems(result), *unnoticed, *low], format_)
    else:
        report_problems(_problems(result), format_)
    for document, rule in result.uncovered:
        click.echo(f"not covered: {document}/{rule}")
    for trial, why in result.unplaced:
        click.echo(f"credential placement not tried: {trial.name}: {why}")
    for survivor in result.survivors:
        click.echo(f"not noticed: {survivor}")
    click.echo(_summary(result))
    if not result.enough and format_ != "github":
        click.echo(below, err=True)


def _problems(result: Result) -> Iterator[Problem]:
    for trial in result.trials:
        yield from trial.problems
    for trial, finding in result.findings:
        yield _problem(trial, finding)


def _problem(trial: Trial, finding: Finding) -> Problem:
    """Return the finding as a problem at its case."""
    assert trial.suite is not None
    case = trial.suite.spec.cases[trial.index]
    more = f" (and {finding.more} more like it)" if finding.more else ""
    message = f"`{case.name}`: {finding.kind}: {finding.what}: {finding.wrong}{more}"
    return trial.suite.document.problem(("spec", "cases", trial.index, "request"), message)


def _at_rule(mutation: Mutation, documents: Mapping[tuple[str, str], Document]) -> Problem:
    """Return the mutation that nothing noticed as a problem at its rule, or at the name of its guardrail."""
    document = documents["Guardrail" if mutation.guards else "Policy", mutation.document]
    rule = mutation.rule
    loc = ("metadata", "name") if rule is None else ("spec", "rules", rule.index, "id")
    return document.problem(loc, f"no test notices: {mutation}")


def _summary(result: Result) -> str:
    covered = len(result.rules) - len(result.uncovered)
    parts = [
        f"{counted(len(result.trials), 'case')}, {result.failed} failed",
        f"{covered} of {counted(len(result.rules), 'rule')} covered",
        _abuse(result),
    ]
    if result.mutations is not None:
        parts.append(f"{len(result.survivors)} of {counted(result.mutations, 'mutation')} not noticed")
    return "; ".join(parts)


def _abuse(result: Result) -> str:
    if result.abused is None:
        return "abuse off"
    cases, found, left_out = len(result.abused), len(result.findings), len(result.unplaced)
    more = f" ({left_out} without credential placement)" if left_out else ""
    succeeded = f", {counted(found, 'abuse') if found else 'no abuse'} succeeded" if cases else ""
    return f"{counted(cases, 'case') if cases else 'no case'} abused{more}{succeeded}"


def _plain(result: Result) -> dict[str, Any]:
    return {
        "passed": result.passed,
        "problems": [],
        "cases": [
            {"file": each.file, "name": each.name, "problems": [plain(one) for one in each.problems]}
            for each in result.trials
        ],
        "min_coverage": result.min_coverage,
        "coverage": {
            "percent": round(result.percent, 1),
            "rules": len(result.rules),
            "uncovered": [{"document": document, "rule": rule} for document, rule in result.uncovered],
        },
        "abused": len(result.abused or ()),
        "abuse": [
            {
                "file": trial.file,
                "case": trial.name,
                "class": finding.kind,
                "request": finding.what,
                "wrong": finding.wrong,
                "more": finding.more,
            }
            for trial, finding in result.findings
        ],
        "credentials_not_placed": [
            {"file": trial.file, "case": trial.name, "why": why} for trial, why in result.unplaced
        ],
        "mutations": _plain_mutations(result),
    }


def _plain_mutations(result: Result) -> dict[str, Any] | None:
    if result.mutations is None:
        return None
    unnoticed = [
        {
            "document": each.document,
            "rule": each.rule.id if each.rule is not None else None,
            "mutation": each.what,
        }
        for each in result.survivors
    ]
    return {"tried": result.mutations, "unnoticed": unnoticed}
