"""The composition root: a section and files become a service."""

from collections.abc import Callable
from pathlib import PurePath

import pytest

from edgekeeper.config import validated
from edgekeeper.errors import ConfigError
from edgekeeper.rpc import Call
from edgekeeper.service import Runtime, Snapshot
from edgekeeper.sources import DiskSources, RecordedSources
from edgekeeper.telemetry import render
from edgekeeper.testing import ManualClock
from edgekeeper.yaml import parse
from protos.envoy.service.ratelimit.v3 import rls_pb2
from ratelimit.__main__ import SERVICE
from ratelimit.config import RatelimitSection
from ratelimit.headers import ResponseHeaders
from ratelimit.limit import OnStoreError

LIMIT = "rate_limit: {unit: minute, requests_per_unit: 1}"


@pytest.fixture
def section(tmp_path) -> Callable[..., RatelimitSection]:
    def make(text: str = "limits: [limits]") -> RatelimitSection:
        document = parse(f"listen: unix:rl.sock\n{text}".encode(), "e.yaml")[0]
        return validated(RatelimitSection, document, base=PurePath(tmp_path))

    return make


@pytest.fixture
def files(tmp_path) -> Callable[..., None]:
    def write(**texts: str) -> None:
        (tmp_path / "limits").mkdir(exist_ok=True)
        for name, text in texts.items():
            (tmp_path / "limits" / f"{name}.yaml").write_text(text)

    return write


def problems(section: RatelimitSection) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        SERVICE.build(section, DiskSources())
    return [str(problem).rpartition("/")[2] for problem in caught.value.problems]


def test_every_file_of_a_directory_is_read_and_its_tests_are_not(section, files):
    files(a="domain: a", b="domain: b", a_test="domain: a\ncases: []")
    generation = SERVICE.build(section(), DiskSources())
    assert ["a", "b"] == list(generation.domains)


def test_a_file_that_is_named_twice_is_read_once(section, files):
    files(a="domain: a")
    assert ["a"] == list(SERVICE.build(section("limits: [limits, limits/a.yaml]"), DiskSources()).domains)


def test_the_same_files_make_the_same_generation_again(section, files):
    files(a=f"domain: a\ndescriptors: [{{key: k, {LIMIT}}}]")
    sources = DiskSources()
    first = SERVICE.build(section(), sources)
    assert first.generation == SERVICE.build(section(), RecordedSources(sources.record())).generation


def test_tests_that_were_run_make_no_other_generation_of_the_record(section, files):
    case = "{name: free, trace: [{at: 0s, descriptors: [{k: v}], want: [none]}]}"
    files(a="domain: a", a_test=f"domain: a\ncases: [{case}]")
    sources = DiskSources()
    first = SERVICE.generation(section(), sources)
    assert any(file.endswith("a_test.yaml") for file in sources.record().files)
    assert first.generation == SERVICE.generation(section(), RecordedSources(sources.record())).generation


def test_another_mode_is_another_generation(section, files):
    files(a=f"domain: a\ndescriptors: [{{key: k, {LIMIT}}}]")
    names = {
        SERVICE.build(section(f"limits: [limits]{more}"), DiskSources()).generation
        for more in (
            "",
            "\nshadow_mode: true",
            "\nquota_mode: true",
            "\nnear_limit_ratio: 0.5",
            "\nmerge_domains: true",
            "\nresponse_headers: {ietf: true}",
        )
    }
    assert 6 == len(names)


def test_the_section_s_modes_reach_the_generation(section, files):
    files(a="domain: a")
    text = "limits: [limits]\nshadow_mode: true\nquota_mode: true\nnear_limit_ratio: 0.5\nresponse_dynamic_metadata: true"
    modes = SERVICE.build(section(text), DiskSources()).modes
    assert (True, True, 0.5, True) == (
        modes.shadow_mode,
        modes.quota_mode,
        modes.near_limit_ratio,
        modes.response_dynamic_metadata,
    )


def test_the_section_s_headers_reach_the_generation(section, files):
    files(a="domain: a")
    text = "limits: [limits]\nresponse_headers: {nearest: true, reset: x-reset, retry_after: true}"
    wanted = ResponseHeaders(("RateLimit-Limit", "RateLimit-Remaining", "x-reset"), retry_after=True)
    assert wanted == SERVICE.build(section(text), DiskSources()).headers


@pytest.mark.parametrize(("many", "more"), [(0, ""), (12, "\nreference_metrics: true")])
def test_the_reference_s_metrics_are_shown_where_the_section_says_so(section, files, tmp_path, many, more):
    files(a="domain: a")
    chosen, runtime = section(f"limits: [limits]{more}"), Runtime(state=tmp_path, clock=ManualClock())
    SERVICE.application(chosen, runtime, Snapshot(SERVICE.build(chosen, DiskSources())))
    names = [family.name for family in runtime.registry.snapshot()]
    assert many == len([name for name in names if name.startswith("ratelimit_service_")])


def test_what_becomes_of_requests_without_a_store_reaches_the_generation(section, files):
    files(a=f"domain: a\ndescriptors: [{{key: k, {LIMIT}}}]")
    modes = SERVICE.build(
        section("limits: [limits]\non_store_error: local\nlocal_processes: 3"), DiskSources()
    ).modes
    assert (OnStoreError.LOCAL, 3, False) == (modes.on_store_error, modes.local_processes, modes.strict)
    modes = SERVICE.build(section(), DiskSources()).modes
    assert (OnStoreError.ERROR, 1, False) == (modes.on_store_error, modes.local_processes, modes.strict)


def test_the_workers_share_a_limit_unless_the_section_knows_better(section, files):
    files(a="domain: a")
    text = "limits: [limits]\nworkers: 4\nstore: {redis: {url: redis://127.0.0.1}}"
    assert 4 == SERVICE.build(section(text), DiskSources()).modes.local_processes


def test_a_strict_section_makes_strict_limits(section, files):
    files(a=f"domain: a\ndescriptors: [{{key: k, {LIMIT}}}]")
    generation = SERVICE.build(section("limits: [limits]\ncompat: strict"), DiskSources())
    rule = generation.domains["a"].match((("k", "v"),))
    assert (True, [True]) == (generation.modes.strict, [limit.counts_refused for limit in rule.limits])


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("compat: strict", "`all_or_nothing` contradicts `compat: strict`"),
        ("store: {redis: {cluster: {addresses: ['127.0.0.1:1']}}}", "in a Redis cluster needs `together`"),
        (
            "store: {redis: {url: redis://a}, redis_per_second: {url: redis://b}}",
            "what is in two stores cannot be decided together",
        ),
    ],
)
def test_a_section_that_all_or_nothing_contradicts(section, files, more, sentence):
    files(a="domain: a\nall_or_nothing: true")
    assert sentence in problems(section(f"limits: [limits]\n{more}"))[0]


def test_domains_are_merged_when_the_section_says_so(section, files):
    files(a="domain: a", b="domain: a")
    assert ["a"] == list(
        SERVICE.build(section("limits: [limits]\nmerge_domains: true"), DiskSources()).domains
    )
    assert 1 == len(problems(section()))


def test_the_mistakes_of_all_files_come_at_once(section, files):
    files(a="domain: [", b="domain: b\n---\ndomain: c", c="domain: ''", d="# nothing")
    found = problems(section("limits: [limits, elsewhere]"))
    assert [
        "a.yaml:2:1: not YAML: did not find expected node content",
        "b.yaml:3:1: one YAML document is needed, got 2; a file is about one domain",
        "c.yaml:1:9: `domain`: needs at least 1 character",
        "d.yaml:1:1: one YAML document is needed, got 0; a file is about one domain",
    ] == sorted(found)[:4]
    assert ["elsewhere"] == [problem.partition(":")[0] for problem in sorted(found)[4:]]


def test_a_directory_without_limits_is_a_mistake(section, files):
    files(a_test="domain: a")
    assert ["limits: there is no file of limits here; they end in `.yaml` or `.yml`"] == problems(section())


async def test_the_application_counts_in_a_store_that_is_as_large_as_it_says(section, files, tmp_path, clock):
    files(a=f"domain: a\ndescriptors: [{{key: k, {LIMIT}}}]")
    chosen = section("limits: [limits]\nstore: {memory: {max_bytes: 1MiB}}")
    runtime = Runtime(state=tmp_path, clock=ManualClock())
    application = SERVICE.application(chosen, runtime, Snapshot(SERVICE.build(chosen, DiskSources())))
    await application.start()
    for n in range(4000):
        message = rls_pb2.RateLimitRequest(domain="a")
        message.descriptors.add().entries.add(key="k", value=str(n))
        await application.methods[0].handler(message.SerializeToString(), Call())
    await application.stop()
    text = render([({}, runtime.registry.snapshot())])
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    counters = float(values["edgekeeper_ratelimit_store_counters"])
    forgotten = float(values['edgekeeper_ratelimit_evictions_total{state="spent"}'])
    assert counters + forgotten == 4000
    assert 0 < float(values["edgekeeper_ratelimit_store_bytes"]) <= 1 << 20
    assert 'edgekeeper_ratelimit_hits_total{domain="a",rule="k"} 4000' in text
