"""Every setting of every YAML under envoy/ stands in settings.yaml, with the section of README.md that argues it.

What cannot be shown in a moment (most limits and timeouts) is held by that table alone; what the other tests of this
folder show stands there too, at the value that ships. A line deleted, changed or added fails.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgekeeper.demo.envoy import configuration

TABLE = yaml.safe_load((Path(__file__).parent / "settings.yaml").read_text(encoding="utf-8"))["table"]
README = (Path(__file__).parents[2] / "envoy/README.md").read_text(encoding="utf-8")
FILES = ("edge", "authz", "ratelimit", "accesslog")


def word_of(path: str) -> str:
    """What README.md calls a setting: the last word of its path, or the action that a threshold belongs to."""
    action = re.search(r"overload_actions\.(\w+)/", path)
    return action[1] if action else path.rpartition("/")[2]


# Each row: the section, the file, the path in it, the value.
ROWS: list[tuple[str, str, str, Any]] = [
    (each["section"], file, f"{each['at']}/{path}", value)
    for each in TABLE
    for file in each["files"]
    for path, value in each["settings"].items()
]

# Not in the table: names and addresses, and what test_edge.py shows word by word (routes, descriptors, the local log).
SHOWN_BY_BEHAVIOUR = re.compile(
    r"/(name|@type|stat_prefix|cluster_name|address|port_value|transport_api_version|service_name)$"
    r"|^node/|/pipe/path$|/rate_limits/|/envoy\.access_loggers\.file/|/domains/|/match/|/route/cluster$|/metadata/"
)


@cache
def shipped(file: str) -> Any:
    return yaml.safe_load(configuration(file))


def leaves(node: Any, path: str = "") -> Iterator[str]:
    """The paths of all values, as the table writes them."""
    if isinstance(node, dict):
        children = list(node.items())
    elif isinstance(node, list):
        named = [each.get("name") if isinstance(each, dict) else None for each in node]
        children = [
            (name or str(index), each) for index, (name, each) in enumerate(zip(named, node, strict=True))
        ]
    else:
        yield path.removeprefix("/")
        return
    for key, child in children:
        yield from leaves(child, f"{path}/{key}")


def section(title: str) -> str:
    """What README.md says under a heading, up to the next."""
    parts = re.split(r"^#+ (.+)\n", README, flags=re.MULTILINE)
    return parts[parts.index(title) + 1]


@pytest.mark.parametrize(("file", "path", "value"), [row[1:] for row in ROWS], ids=str)
def test_a_setting_ships_with_its_value(setting: Any, file: str, path: str, value: Any) -> None:
    assert value == setting(shipped(file), path)


@pytest.mark.parametrize(("title", "word"), sorted({(row[0], word_of(row[2])) for row in ROWS}))
def test_the_readme_argues_a_setting_under_its_heading(title: str, word: str) -> None:
    assert f"`{word}" in section(title)


@pytest.mark.parametrize("file", FILES)
def test_no_setting_ships_unargued(file: str) -> None:
    rows = {row[2] for row in ROWS if row[1] == file}
    assert [] == [
        path
        for path in leaves(shipped(file))
        if not SHOWN_BY_BEHAVIOUR.search(path) and not any(f"{path}/".startswith(f"{row}/") for row in rows)
    ]
