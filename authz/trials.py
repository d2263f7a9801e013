"""The tests beside the documents (`NAME_test.yaml`): requests, each with the decision that must come.

They are part of a build: a generation whose tests fail is not served. Every request is decided by the policies as they
are, at a time that the test says. Edge: reads through `Sources`, and watches how long it takes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from authz.attempts import Attempt, Tried, differences, enforced, is_called, known_rules, tried
from authz.attributes import Attributes
from authz.callers import NotACaller, Vouched, vouched
from authz.canonical import NotCanonical, host_of
from authz.cases import Case, PolicyTest, PolicyTestSpec
from authz.config import AuthzSection
from authz.policy import Policies
from authz.sets import time_us
from edgekeeper.beside import files_of_tests
from edgekeeper.clock import Clock, SystemClock
from edgekeeper.config import validated
from edgekeeper.errors import ConfigError, Problem
from edgekeeper.mistakes import did_you_mean
from edgekeeper.sources import Sources
from edgekeeper.yaml import Document, Loc, parse

__all__ = ["Suite", "Trial", "problems", "suites", "trials"]

LIMIT_US: Final = 5_000_000
"""How long the tests of a reload may take."""


@dataclass(frozen=True)
class Suite:
    """One document of tests, ready to be tried."""

    document: Document
    name: str
    spec: PolicyTestSpec
    attempts: tuple[Attempt, ...]

    def problem(self, index: int, loc: Loc, message: str) -> Problem:
        """Return the problem of an expectation of one case."""
        case = self.spec.cases[index]
        field = ".".join(str(step) for step in loc)
        return self.document.problem(
            ("spec", "cases", index, "expect", *loc), f"`{case.name}`: `{field}`: {message}"
        )


@dataclass(frozen=True)
class Trial:
    """One case, the one at `index` of its suite, and what came of it; without a `suite`: what cannot be tried, and why."""

    file: str
    name: str
    problems: tuple[Problem, ...] = ()
    suite: Suite | None = None
    index: int = 0
    tried: Tried | None = None


def problems(
    section: AuthzSection, policies: Policies, sources: Sources, *, clock: Clock | None = None
) -> Iterator[Problem]:
    """Yield what is wrong with the tests of the section's policies, and where they fail; it ends after 5 s."""
    clock = clock or SystemClock()
    until_us = clock.monotonic_us() + LIMIT_US
    for trial in trials(section, policies, sources):
        yield from trial.problems
        if clock.monotonic_us() > until_us:
            hint = "a reload waits for them; move some out of the directories that `policies` names"
            yield Problem(trial.file, 0, 0, "the tests beside the documents take longer than 5 s", hint)
            return


def trials(section: AuthzSection, policies: Policies, sources: Sources) -> Iterator[Trial]:
    """Yield every case of every file with tests, tried."""
    policies = enforced(policies)
    for suite in suites(section, policies, sources):
        if isinstance(suite, Trial):
            yield suite
            continue
        for index, attempt in enumerate(suite.attempts):
            case, result = suite.spec.cases[index], tried(policies, attempt)
            wrong = [
                suite.problem(index, loc, message)
                for loc, message in differences(case.expect, result, policies)
            ]
            yield Trial(suite.document.file, f"{suite.name}: {case.name}", tuple(wrong), suite, index, result)


# -- reading ----------------------------------------------------------------------------------------------------------


def suites(section: AuthzSection, policies: Policies, sources: Sources) -> Iterator[Suite | Trial]:
    """Yield every document of tests, or a trial with what is wrong with it. Those of policies that are off are left out."""
    names: dict[str, str] = {}
    for file in files_of_tests((entry.path for entry in section.policies), sources):
        try:
            documents = [each for each in parse(sources.read(file), file) if each.value is not None]
            if not documents:
                raise ConfigError([Problem(file, 0, 0, "there is no test here", "delete the file")])
        except ConfigError as error:
            yield Trial(file, "", error.problems)
            continue
        for document in documents:
            try:
                test = validated(PolicyTest, document)
                _check_name(test.metadata.name, document, names)
                if test.spec.policy not in policies.off:
                    yield _suite(test, document, policies)
            except ConfigError as error:
                yield Trial(file, "", error.problems)


def _check_name(name: str, document: Document, names: dict[str, str]) -> None:
    place = f"{document.file}:{document.place(('metadata', 'name'))[0]}"
    first = names.setdefault(name, place)
    if first != place:
        message = f"`metadata.name`: another PolicyTest is called `{name}`: {first}"
        raise ConfigError([document.problem(("metadata", "name"), message)])


def _suite(test: PolicyTest, document: Document, policies: Policies) -> Suite:
    """Return the document as it can be tried.

    Raises:
        ConfigError: Operator error: everything that its shape does not say is wrong.
    """
    spec = test.spec
    if spec.policy not in policies.by_name:
        message = f"`spec.policy`: no `Policy` is called `{spec.policy}`"
        hint = did_you_mean(spec.policy, policies.by_name)
        raise ConfigError([document.problem(("spec", "policy"), message, hint)])
    return _Reading(spec, document, policies).suite(test.metadata.name)


class _Reading:
    """One document on its way to attempts, and what is wrong with it."""

    def __init__(self, spec: PolicyTestSpec, document: Document, policies: Policies) -> None:
        self._spec, self._document, self._policies = spec, document, policies
        self._policy = policies.by_name[spec.policy]
        self._rules = [(document, rule.id) for document, rule in known_rules(policies, spec.policy)]
        hosts = (str(host) for host, each in policies.hosts.items() if each.name == spec.policy)
        self._host = next((host for host in hosts if not host.startswith("*")), None)
        self._vouched: dict[tuple[str, str], Vouched | None] = {}
        self._problems: list[Problem] = []

    def suite(self, name: str) -> Suite:
        """Return the suite.

        Raises:
            ConfigError: Operator error: all that is wrong.
        """
        spec, seen = self._spec, set[str]()
        for who in spec.as_:
            self._caller(who, spec.now)
        attempts = []
        for index, case in enumerate(spec.cases):
            loc: Loc = ("spec", "cases", index)
            if case.name in seen:
                self._problem((*loc, "name"), f"another case is called `{case.name}`")
            seen.add(case.name)
            self._check_rules(case, (*loc, "expect"))
            attempts.append(self._attempt(case, loc))
        if self._problems:
            raise ConfigError(self._problems)
        return Suite(self._document, name, spec, tuple(attempts))

    def _problem(self, loc: Loc, message: str, hint: str = "", *, key: bool = False) -> None:
        self._problems.append(self._document.problem(loc, f"`{loc[-1]}`: {message}", hint, key=key))

    def _caller(self, name: str, now: str) -> Vouched | None:
        """Return who is called `name` at this time; None after a problem."""
        if (name, now) not in self._vouched:
            try:
                self._vouched[name, now] = vouched(self._spec.as_[name], self._policy, time_us(now))
            except NotACaller as error:
                self._vouched[name, now] = None
                self._problem(("spec", "as", name, *error.loc), str(error), error.hint)
        return self._vouched[name, now]

    def _attempt(self, case: Case, loc: Loc) -> Attempt:
        now = case.now or self._spec.now
        caller = None
        if case.as_ in self._spec.as_:
            caller = self._caller(case.as_, now)
        elif case.as_ is not None:
            hint = did_you_mean(case.as_, self._spec.as_)
            self._problem((*loc, "as"), f"nobody in `spec.as` is called `{case.as_}`", hint)
        host = case.host if case.host is not None else self._host
        if host is None:
            self._problem(loc, "`host` is needed, since each host of the policy is a pattern")
        elif case.expect.reason != "no_policy" and not self._of_guardrail(case.expect.rule or ""):
            self._check_host(host, (*loc, "host"))
        method, _, target = case.request.partition(" ")
        request = Attributes(
            method=method,
            target=target,
            host=host or "",
            scheme=case.scheme,
            protocol="HTTP/2",
            headers=case.lines,
            source_address=case.client_ip,
            principal=case.principal,
            sni=case.sni,
            metadata=case.metadata,
        )
        return Attempt(caller.dressed(request) if caller else request, time_us(now), caller)

    def _of_guardrail(self, name: str) -> bool:
        return any(is_called(rule.owner, rule.id, name) for rule in self._policies.rails)

    def _check_host(self, host: str, loc: Loc) -> None:
        """Find a host that other rules are for: a case would show nothing of the policy, and yet come true."""
        try:
            policy = self._policies.hosts.nearest(host_of(host)[0])
        except NotCanonical:
            return  # which is refused, and may well be what the case shows
        if policy is None or policy.name != self._spec.policy:
            other = f"`{policy.name}`" if policy is not None else "no policy"
            hint = "" if policy is not None else "if that is meant, expect `reason: no_policy`"
            self._problem(loc, f"`{host}` is a host of {other}, not of `{self._spec.policy}`", hint)

    def _check_rules(self, case: Case, loc: Loc) -> None:
        """Find names of rules that do not exist."""
        expect = case.expect
        places: list[tuple[Loc, str]] = [((*loc, "shadow", name), name) for name in expect.shadow or ()]
        if expect.rule:
            places.append(((*loc, "rule"), expect.rule))
        for place, name in places:
            if not any(is_called(document, rule, name) for document, rule in self._rules):
                hint = did_you_mean(name, [rule for _, rule in self._rules])
                self._problem(place, "neither the policy nor a guardrail has this rule", hint)
