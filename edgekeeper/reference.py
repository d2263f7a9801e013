"""The formats for editors and people: the models' JSON Schemas, and a page made of them. Pure: no I/O, no clock."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from edgekeeper.config import Model
from edgekeeper.units import as_written, unit_in

__all__ = ["DOCUMENTS", "meaning", "page", "schema"]

DOCUMENTS: Final = "documents"
"""The name of the schema for files that hold documents of several kinds."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_OF_NUMBERS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "ge", "gt", "le", "lt")

_HEAD: Final = """# Reference

Every field of every file, written by `make docs` from the models that read them. A dash under "default" means that the
field has to be there. Unknown fields are errors everywhere. A list is always a list, also with one entry.
"""


def schema(models: Mapping[str, type[Model]], name: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the model called `name`; of `DOCUMENTS`: one of all that have a `kind`."""
    if name != DOCUMENTS:
        return {"$schema": _DIALECT, **_written(models[name].model_json_schema())}
    kinds = [model for model in models.values() if "kind" in model.model_fields]
    references, combined = models_json_schema([(model, "validation") for model in kinds])
    choice = [references[model, "validation"] for model in kinds]
    return {"$schema": _DIALECT, "title": "Documents", "oneOf": choice, "$defs": _written(combined["$defs"])}


def _written(node: Any) -> Any:
    """Return a schema in which the default of a number with a unit is written as users write it."""
    if isinstance(node, list):
        return [_written(each) for each in node]
    if not isinstance(node, dict):
        return node
    inner = {name: _written(each) for name, each in node.items()}
    unit = unit_in(node["pattern"]) if isinstance(node.get("pattern"), str) else None
    if unit is None:
        return inner
    if isinstance(node.get("default"), int):
        inner["default"] = as_written(node["default"], unit)
    return {name: each for name, each in inner.items() if name not in _OF_NUMBERS}


def page(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page for JSON Schemas by the names that `edgekeeper schema` knows them by, as Markdown."""
    return "\n".join([_HEAD, *(line for name, schema in schemas.items() for line in _document(name, schema))])


def _document(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    inner_models = schema.get("$defs", {})
    yield f"## {name}\n"
    yield from _object(schema, inner_models)
    for title, inner in inner_models.items():
        if "properties" in inner:
            yield f"### {name}: {title}\n"
            yield from _object(inner, inner_models)


def meaning(field: Mapping[str, Any], inner_models: Mapping[str, Any]) -> str:
    """Return the description of a field; pydantic leaves out one that equals that of the field's model."""
    referred = inner_models.get(field.get("$ref", "").rpartition("/")[2], {})
    return _text(field.get("description", referred.get("description", "")))


def _object(schema: Mapping[str, Any], inner_models: Mapping[str, Any]) -> Iterator[str]:
    if description := schema.get("description"):
        yield f"{_text(description)}\n"
    yield "| field | type | default | meaning |\n|---|---|---|---|"
    required = schema.get("required", ())
    for field, inner in schema.get("properties", {}).items():
        default = (
            "-"
            if field in required
            else f"`{json.dumps(inner.get('default'))}`"
            if "default" in inner
            else ""
        )
        yield f"| `{field}` | {_type(inner)} | {default} | {meaning(inner, inner_models)} |"
    yield ""


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(
            dict.fromkeys(_type(inner) for inner in schema["anyOf"] if inner.get("type") != "null")
        )
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"map of {_type(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


def _text(description: str) -> str:
    return " ".join(description.split()).replace("|", "\\|")
