"""docs/telemetry.md names what there is, and nothing else."""

import re
from pathlib import Path
from types import SimpleNamespace

from edgekeeper import collector, door, lag, otlp, tracing
from edgekeeper.admin import Admin
from edgekeeper.config import Address
from edgekeeper.overview import Overview
from edgekeeper.report import Report
from edgekeeper.service import Component
from edgekeeper.telemetry import LATENCY_BUCKETS_S, Registry

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text()
FLAT = " ".join(PAGE.split())
ROW = re.compile(r"^\| `((?:edgekeeper|rpc|process|python_gc)_\w+)` \| (\w+) \|([^|]*)\| ", re.MULTILINE)
MADE = re.compile(r'"(edgekeeper_[a-z_]+|rpc_[a-z_]+_seconds|process_[a-z_]+|python_gc_[a-z_]+)"')


def in_the_sources() -> set[str]:
    """The names that the shell's modules write out."""
    texts = (file.read_text() for file in (ROOT / "edgekeeper").glob("*.py"))
    return {name for text in texts for name in MADE.findall(text)}


async def told() -> dict[str, tuple[str, set[str]]]:
    """What the supervisor itself says of its workers: kind and labels by name."""
    worker = Report("authz", 0, "g", True, {"store": Component(ready=True)}, ())

    async def ask() -> dict[str, list[Report | None]]:
        return {"authz": [worker]}

    families = await Overview(SimpleNamespace(), Registry(), ask).families()
    return {family.name: (family.kind, set(family.label_names)) for _, each in families for family in each}


async def test_the_metrics_are_those_that_there_are():
    assert in_the_sources() | set(await told()) == {name for name, _, _ in ROW.findall(PAGE)}


async def test_the_kinds_and_labels_are_those_of_the_metrics():
    rows = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in ROW.findall(PAGE)}
    for name, (kind, labels) in (await told()).items():
        common = {"worker"} if name.startswith("process_") else set()
        assert (kind, (labels | common) - {"service"}) == rows[name], name


def test_the_paths_are_those_of_the_admin_address():
    async def none() -> dict[str, list[Report | None]]:
        return {}

    admin = Admin(Address(path="/x"), Overview(SimpleNamespace(), Registry(), none))
    served = {route.resource.canonical for route in admin._reading().router.routes()}
    assert served == set(re.findall(r"^\| `(/[\w/{}]+)` \|", PAGE, re.MULTILINE))


def test_the_bounds_are_those_of_the_histograms():
    (text,) = re.findall(r"bounds of latencies are ([^:]*) ms:", FLAT)
    told_ms = [float(number) for number in re.findall(r"[\d.]+", text)]
    assert [round(bound * 1000, 3) for bound in LATENCY_BUCKETS_S] == told_ms


def test_the_figures_are_those_of_the_code():
    for words in (
        f"At most {door.MAX_CONNECTIONS} connections are served at once, each for at most {door.CONNECTION_S:.0f} seconds",
        f"every {otlp.INTERVAL_S:.0f} s (OTLP over HTTP",
        f"for at most {otlp.LAST_S:.0f} s.",
        f"takes at most {collector.TIMEOUT_S:.0f} s",
        f"{tracing.MAX_WAITING:,} may wait",
        f"later than {lag.STALL_S * 1000:.0f} ms three times in a row",
    ):
        assert words in FLAT
    assert (3, 0.1) == (lag.IN_A_ROW, lag.INTERVAL_S)
