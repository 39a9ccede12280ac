"""Compares real answers with the OpenAPI document: status, headers, content type, each field of the body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
from jsonschema import Draft202012Validator


@dataclass(frozen=True, slots=True)
class RealAnswer:
    """Holds one answer of the service, and the method and path of its request."""

    method: str
    #: Path of the request as the client sent it, with its query.
    path: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class OpenApiCheck:
    """Checks answers against an OpenAPI document, and records which documented answers were seen."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        closed = _closed(document["components"]["schemas"])
        self._components = {"schemas": closed, "headers": document["components"]["headers"]}
        #: Paths of the document with the patterns that they match; paths without parameters come first.
        self._paths = [
            (path, re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))))
            for path in sorted(document["paths"], key=lambda path: "{" in path)
        ]
        #: Operation ids and statuses that were seen.
        self.seen: set[tuple[str, str]] = set()

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """Return the operation of a request; None if the document does not have it."""
        bare = path.partition("?")[0]
        for template, pattern in self._paths:
            if pattern.fullmatch(bare):
                found: dict[str, Any] | None = self._document["paths"][template].get(method.lower())
                return found
        return None

    def documented(self) -> set[tuple[str, str]]:
        """Return the operation ids and statuses of the document."""
        return {
            (operation["operationId"], status)
            for methods in self._document["paths"].values()
            for method, operation in methods.items()
            if method != "parameters"
            for status in operation["responses"]
        }

    def check(self, answer: RealAnswer) -> None:
        """Raise AssertionError unless the document describes this answer."""
        operation = self.operation(answer.method, answer.path)
        assert operation is not None, f"{answer.method} {answer.path} is not in the document"
        where = f"{answer.method} {answer.path}, {answer.status}"
        described = operation["responses"].get(str(answer.status))
        assert described is not None, f"{where}: the document does not have this status"
        self.seen.add((operation["operationId"], str(answer.status)))
        for name in described.get("headers", {}):
            assert name in answer.headers, f"{where}: the header {name} is missing"
        content = described.get("content", {})
        if not content:
            assert not answer.body, f"{where}: the document does not have a body"
            return
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in content, f"{where}: the document does not have the content type {kind}"
        if kind == "application/msgpack":
            self._validate(content[kind]["schema"], msgpack.unpackb(answer.body), where)
        elif kind.endswith("json"):
            self._validate(content[kind]["schema"], json.loads(answer.body), where)
        else:
            assert answer.body, f"{where}: the body is empty"

    def check_body(self, component: str, body: object) -> None:
        """Raise AssertionError unless a value matches the schema of a component."""
        self._validate({"$ref": f"#/components/schemas/{component}"}, body, component)

    def _validate(self, schema: dict[str, Any], value: object, where: str) -> None:
        validator = Draft202012Validator({**schema, "components": self._components})
        faults = [f"{fault.json_path}: {fault.message[:300]}" for fault in validator.iter_errors(value)]
        assert not faults, f"{where}: {faults}"


def _closed(schema: Any) -> Any:
    """Return a schema that rejects fields it does not describe, to find fields that it lacks."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(part) for name, part in schema.items()}
    if found.get("type") == "object" and "properties" in found:
        found.setdefault("additionalProperties", False)
    return found
