"""The generated modules: up to date, free of side effects, at peace with others, and found by reflection."""

import importlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted(ROOT.glob("protos/**/*_pb2.py"))
]
SERVICES = {
    "envoy.service.accesslog.v3.AccessLogService": "protos.envoy.service.accesslog.v3.als_pb2",
    "envoy.service.auth.v3.Authorization": "protos.envoy.service.auth.v3.external_auth_pb2",
    "envoy.service.ratelimit.v3.RateLimitService": "protos.envoy.service.ratelimit.v3.rls_pb2",
}


def run(*arguments):
    """The exit status and all output of a Python process that stands in the repository's root."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.fixture
def copy(tmp_path):
    """A copy of protos/ that a test may spoil."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "protos"


def test_the_generated_modules_are_up_to_date():
    assert (0, "") == run("protos/generate", "--check")


def test_a_changed_definition_makes_its_modules_stale(copy):
    with (copy / "envoy/type/v3/semantic_version.proto").open("a") as definition:
        definition.write("message Another {}\n")
    stale = "protos/envoy/type/v3/semantic_version_pb2.{} is stale: run protos/generate\n"
    assert (1, stale.format("py") + stale.format("pyi")) == run(copy / "generate", "--check")


def test_a_module_without_a_definition_is_stale_and_generating_removes_it(copy):
    orphan = copy / "envoy/type/v3/gone_pb2.py"
    orphan.touch()
    assert (1, "protos/envoy/type/v3/gone_pb2.py is stale: run protos/generate\n") == run(
        copy / "generate", "--check"
    )
    assert (0, "protos/envoy/type/v3/gone_pb2.py\n") == run(copy / "generate")
    assert not orphan.exists()


def test_generating_writes_what_is_missing(copy):
    module = copy / "envoy/type/v3/http_status_pb2.pyi"
    want = module.read_bytes()
    module.unlink()
    assert (0, "protos/envoy/type/v3/http_status_pb2.pyi\n") == run(copy / "generate")
    assert want == module.read_bytes()


def test_a_wrong_definition_fails_with_its_line_and_changes_nothing(copy):
    (copy / "envoy/type/v3/semantic_version.proto").write_text('syntax = "proto3";\nmessage {}\n')
    module = copy / "envoy/type/v3/semantic_version_pb2.py"
    before = module.read_bytes()
    status, output = run(copy / "generate")
    assert 1 == status
    assert "protos/envoy/type/v3/semantic_version.proto:2:9" in output
    assert before == module.read_bytes()


AUDITED_IMPORT = """
import importlib, sys
import google.rpc.status_pb2, google.protobuf.struct_pb2

def refuse(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if writes or event.split(".")[0] in {"socket", "subprocess", "os.system", "_thread", "shutil"}:
        raise SystemExit(f"{event}{arguments}")

sys.addaudithook(refuse)
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_importing_the_modules_writes_nothing_starts_nothing_and_says_nothing():
    assert (0, "") == run("-B", "-W", "error", "-c", AUDITED_IMPORT, *MODULES)


IMPORT = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
OTLP = "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2"


@pytest.mark.parametrize("order", [[OTLP, *MODULES], [*MODULES, OTLP]], ids=["exporter first", "ours first"])
def test_our_protos_load_beside_those_of_an_otlp_exporter(order):
    assert (0, "") == run("-c", IMPORT, *order)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_names_its_file_below_protos_and_keeps_envoys_package(module):
    file = importlib.import_module(module).DESCRIPTOR
    path = module.replace(".", "/").removesuffix("_pb2") + ".proto"
    package = module.removeprefix("protos.").rpartition(".")[0]
    assert (path, package) == (file.name, file.package)


@pytest.fixture
def reflected(tmp_path):
    """The descriptors that a client learns from a server's reflection, and from nothing else."""
    for module in SERVICES.values():
        importlib.import_module(module)
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    reflection.enable_server_reflection(SERVICES, server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    server.start()
    with grpc.insecure_channel(f"unix:{tmp_path}/s") as channel:
        yield descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    server.stop(None).wait()


@pytest.mark.parametrize("name", SERVICES)
def test_reflection_finds_a_service_with_its_messages(name, reflected):
    want = importlib.import_module(SERVICES[name]).DESCRIPTOR.services_by_name[name.rpartition(".")[2]]
    methods = [(m.full_name, m.input_type.full_name, m.output_type.full_name) for m in want.methods]
    found = reflected.FindServiceByName(name).methods
    assert methods == [(m.full_name, m.input_type.full_name, m.output_type.full_name) for m in found]
