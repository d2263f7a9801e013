"""`edgekeeper authz test`: the tests beside the documents, what an attacker would make of them, and what they leave untested. Root."""

import sys
from collections.abc import Iterable, Iterator, Sequence

import click

from authz.abuse import Abuse, Abused, targets_of
from authz.attempts import enforced
from authz.cli.read import documents
from authz.cli.results import Result, tell
from authz.mutations import Cases, Passed, mutations
from authz.policy import Policies
from authz.trials import Suite, Trial, trials
from edgekeeper.commands import check_format_option, config_option, exits
from edgekeeper.errors import OperatorError
from edgekeeper.settings import load
from edgekeeper.sources import DiskSources

__all__ = ["command"]


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
    few rules are covered (--min-coverage), 2 when there is nothing to read, or no case to run.

    \b
    Example:  edgekeeper authz test --config edgekeeper.yaml --mutate --min-coverage 100
    """
    from authz.__main__ import SERVICE, build

    with exits(format_=format_, beside={"passed": False, "cases": []}):
        section, sources = load(config).section(SERVICE.name), DiskSources()
        policies = enforced(build(section, sources))
        tried = list(trials(section, policies, sources))
        if not tried:
            raise OperatorError(
                "there is no case to run: tests stand beside the documents, in files whose names end in"
                " `_test.yaml`, and those of policies that are off are left out"
            )
        result = _result(policies, tried, abuse=abuse, mutate=mutate, min_coverage=min_coverage)
        at_rules = format_ == "github" and result.survivors
        tell(result, format_, [each for each, _ in documents(section, sources)] if at_rules else ())
        sys.exit(0 if result.passed else 1)


def _result(
    policies: Policies, tried: Sequence[Trial], *, abuse: str | None, mutate: bool, min_coverage: float
) -> Result:
    rules = [rule for policy in policies.by_name.values() for rule in policy.rules]
    matched = frozenset(each for trial in tried if trial.tried is not None for each in trial.tried.matched)
    made = list(mutations(policies, policies.by_name)) if mutate else []
    cases = Cases(policies, _passed(tried))
    return Result(
        trials=tried,
        rules=[(rule.owner, rule.id) for rule in (*rules, *policies.rails)],
        matched=matched,
        min_coverage=min_coverage,
        abused=_abused(policies, tried, abuse),
        mutations=len(made) if mutate else None,
        survivors=[each for each in made if not cases.notice(each)],
    )


def _abused(
    policies: Policies, tried: Sequence[Trial], abuse: str | None
) -> list[tuple[Trial, Abused]] | None:
    """Return what the abuse of each case found that came true as it is; None: it is off for all documents."""
    suites = {id(each.suite): each.suite for each in tried if each.suite is not None}.values()
    on = [suite for suite in suites if (abuse or suite.spec.abuse) == "auto"]
    if suites and not on:
        return None
    return [each for suite in on for each in _of_suite(policies, suite, tried)]


def _of_suite(policies: Policies, suite: Suite, tried: Iterable[Trial]) -> Iterator[tuple[Trial, Abused]]:
    good = [(each, each.tried) for each in tried if each.suite is suite and not each.problems]
    targets = targets_of(result for _, result in good if result is not None)
    abuse = Abuse(policies, suite.spec.policy, suite.spec.as_, targets)
    for trial, result in good:
        assert result is not None
        found = abuse.of(result.attempt, suite.spec.cases[trial.index].as_)
        if found is not None:
            yield trial, found


def _passed(tried: Iterable[Trial]) -> Iterator[Passed]:
    """Yield the cases that came true."""
    for trial in tried:
        if trial.suite is not None and trial.tried is not None and not trial.problems:
            yield Passed(trial.suite.spec.cases[trial.index].expect, trial.tried)
