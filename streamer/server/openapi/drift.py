"""The routes of drift in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.drift.status import DriftStatus
from streamer.server.openapi.parts import problems

_KEY = {
    401: "API keys are configured and none, or a wrong one, was sent.",
    403: "The key has no scope `admin`, or pages of this origin may not use this server.",
    429: "Too many wrong keys came from this address.",
}
_REPORT_REFUSALS = _KEY | {
    404: "No such group; names those there are.",
    409: "No reference, or no window with enough rows yet.",
    503: "Evidently is not installed or failed, or the sampling process does not answer.",
}
_UPDATE_REFUSALS = _KEY | {
    400: "A field, row or column that is unknown or wrong; names it.",
    408: "The body did not arrive in time.",
    409: "In drift, or too few rows to learn from; `force` insists.",
    413: "The body has more than 16 MB.",
    415: "Not `application/json`.",
    423: "Another update is running.",
    503: "The sampling process does not answer, or the file cannot be written.",
}
_UPDATE_WORDS = (
    "Learns what is normal: from the rows of the last hours, from rows that are sent, or takes a whole "
    "reference (docs/drift.md). Answers with what was learnt, and how far the present windows lie from the "
    "old and the new reference."
)


def drift_paths() -> dict[str, Any]:
    """Return the three paths."""
    return {
        "/drift/status": {"get": _status()},
        "/drift/report": {"get": _report()},
        "/reference/update": {"post": _update()},
    }


def drift_schemas() -> dict[str, Any]:
    """Return the schema of the status."""
    text, flag = {"type": "string"}, {"type": "boolean"}
    words = {"enum": [status.name.lower() for status in DriftStatus]}
    group = {
        "type": "object",
        "properties": {
            "status": words,
            "severity": {"enum": ["minor", "moderate", "severe", None]},
            "since": {"type": ["string", "null"], "format": "date-time"},
            "episodes": {"type": "integer"},
            "samples": {"type": "integer"},
            "moved": {"type": "array", "items": text},
            "hot_last3": {"type": "array", "items": flag},
            "window": {"type": ["object", "null"]},
            "columns": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["status", "moved", "columns"],
    }
    status = {
        "type": "object",
        "properties": {
            "status": words,
            "observer": text,
            "alert": flag,
            "engine": {"enum": ["evidently", "builtin"]},
            "engine_error": {"type": ["string", "null"]},
            "error": {"type": ["string", "null"]},
            "groups": {"type": "object", "additionalProperties": group},
            "reference": {"type": ["object", "null"]},
        },
        "required": ["status", "observer"],
    }
    return {"DriftStatus": status}


def _status() -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/DriftStatus"}}}
    return {
        "operationId": "drift_status",
        "tags": ["operations"],
        "summary": "Whether the streams still look like their reference",
        "security": [{}],
        "responses": {"200": {"description": "Always, from memory.", "content": content}},
    }


def _report() -> dict[str, Any]:
    group = {"name": "group", "in": "query", "required": False, "schema": {"type": "string"}}
    return {
        "operationId": "drift_report",
        "tags": ["operations"],
        "summary": "Evidently's page about one group, the worst one by default",
        "parameters": [group],
        "responses": {
            "200": {
                "description": "HTML; made on demand, which takes seconds, and kept.",
                "content": {"text/html": {"schema": {"type": "string"}}},
            },
            **problems(_REPORT_REFUSALS),
        },
    }


def _update() -> dict[str, Any]:
    flag = {"type": "boolean", "default": False}
    body = {
        "type": "object",
        "properties": {
            "source": {"enum": ["last"]},
            "hours": {"type": "number", "exclusiveMinimum": 0, "maximum": 744, "default": 24},
            "group": {"type": "string", "default": "*"},
            "rows": {"type": "array", "items": {"type": "object"}},
            "dry_run": flag,
            "force": flag,
        },
    }
    return {
        "operationId": "reference_update",
        "tags": ["operations"],
        "summary": "Make another reference",
        "description": _UPDATE_WORDS,
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": flag} for name in ("dry_run", "force")
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "What was learnt.",
                "content": {"application/json": {"schema": {"type": "object"}}},
            },
            **problems(_UPDATE_REFUSALS),
        },
    }
