"""The reference page is that of the models, and every field of them is described."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekeeper.reference import meaning, page, schema
from edgekeeper.settings import model, services

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def schemas() -> dict[str, Any]:
    known = services()
    models = {"edgekeeper": model(known)}
    for service in known.values():
        models |= service.documents
    return {name: schema(models, name) for name in models}


def test_the_page_is_up_to_date():
    assert page(schemas()) == PAGE.read_text(encoding="utf-8"), "run `make docs`"


def objects(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield schema["title"], schema
    yield from schema.get("$defs", {}).items()


@pytest.mark.parametrize("name", schemas())
def test_every_field_says_what_it_means(name: str):
    whole = schemas()[name]
    silent = [
        f"{title}.{field}"
        for title, each in objects(whole)
        for field, inner in each.get("properties", {}).items()
        if len(meaning(inner, whole.get("$defs", {}))) < 10
    ]
    assert [] == silent


def test_the_words_for_types():
    schema = {
        "properties": {
            "a": {"type": "array", "items": {"$ref": "#/$defs/Thing"}, "description": "One | two."},
            "b": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
            "c": {"enum": ["x", "y"], "default": "x"},
            "d": {"type": "object", "additionalProperties": {"type": "string"}},
            "e": {"const": 1, "default": 1},
        },
        "required": ["a"],
    }
    rows = [line for line in page({"t": schema}).splitlines() if line.startswith("| `")]
    assert [
        "| `a` | list of Thing | - | One \\| two. |",
        "| `b` | integer | `null` |  |",
        '| `c` | `x` \\| `y` | `"x"` |  |',
        "| `d` | map of string |  |  |",
        "| `e` | `1` | `1` |  |",
    ] == rows


def test_every_default_of_a_number_with_a_unit_is_written_with_it():
    numbers = [
        (title, field, inner["default"])
        for name in schemas()
        for title, each in objects(schemas()[name])
        for field, inner in each.get("properties", {}).items()
        if "default" in inner and ("KiB" in inner.get("pattern", "") or "us|ms" in inner.get("pattern", ""))
    ]
    assert [] == [each for each in numbers if not isinstance(each[2], str | None)]
    assert ("MemorySection", "max_bytes", "64MiB") in numbers


def test_the_schema_of_documents_is_one_of_every_kind():
    known = services()["authz"].documents
    made = schema(known, "documents")
    kinds = {"Policy", "Guardrail", "JwtProvider", "ApiKeySet", "IpSet", "PolicyTest"}
    assert {f"#/$defs/{kind}" for kind in kinds} == {each["$ref"] for each in made["oneOf"]}
    assert kinds <= set(made["$defs"])
    assert made["$schema"]
