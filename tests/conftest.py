"""Fixtures for every test."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory with a path short enough for the sockets of a test."""
    path = Path(tempfile.mkdtemp(prefix="ek-", dir="/tmp"))
    yield path
    shutil.rmtree(path)
