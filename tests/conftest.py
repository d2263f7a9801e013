"""Fixtures for every test, and a watch over what all of them print and log."""

import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

CANARY = "canary-e2f1c0ffee"
"""A secret. Tests send it as credential, cookie, key and query; nothing may print, log, count or answer it."""


@pytest.fixture(scope="session")
def canary() -> str:
    return CANARY


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory with a path short enough for the sockets of a test."""
    path = Path(tempfile.mkdtemp(prefix="ek-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that printed or logged the canary, at its end, when all that it said is known."""
    report = yield
    told = [name for name, text in report.sections if CANARY in text]
    if told and report.when == "teardown" and report.passed:
        report.outcome, report.longrepr = "failed", f"the canary stands in: {', '.join(told)}"
    return report
