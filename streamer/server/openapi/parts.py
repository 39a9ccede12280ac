"""Parts of which all operations of the OpenAPI document consist: references, refusals, schemas of models."""

from __future__ import annotations

from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from streamer.http.problem_details import PROBLEM_TYPE, REQUEST_ID_HEADER

VERSIONS = ("v1", "v2")


def ref(schema: str) -> dict[str, str]:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{schema}"}


def id_header() -> dict[str, Any]:
    """Return the header with the request id, which every answer has."""
    return {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}


def problems(words: dict[int, str]) -> dict[str, Any]:
    """Return the answers of refusals, from status and description."""
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}. {text}",
            "headers": id_header()
            | ({"Retry-After": {"schema": {"type": "integer"}}} if status in (429, 503) else {}),
            "content": {PROBLEM_TYPE: {"schema": ref("Problem")}},
        }
        for status, text in words.items()
    }


def object_of(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the schema of an object that has all these properties, except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


@cache
def _generated(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(mode="validation")


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of what a model accepts, with a plain schema for each field."""
    generated = _generated(model)
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: field_schema(model, name) for name in generated["properties"]},
    }
    if "required" in generated:
        found["required"] = generated["required"]
    return found


def field_schema(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the schema of one field, without the null that stands for an absent field."""
    field: dict[str, Any] = dict(_generated(model)["properties"][name])
    field.pop("title", None)
    if "default" in field and field["default"] is None:
        del field["default"]
    branches = [branch for branch in field.pop("anyOf", ()) if branch != {"type": "null"}]
    if len(branches) == 1:
        return {**branches[0], **field}
    return {**field, "anyOf": branches} if branches else field
