"""Describes the routes for health, metrics and drift in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from streamer.drift.learned_reference import HistoryUpdate, RowsUpdate, UpdateFlags
from streamer.drift.reference_document import PLAIN_ROW_SCHEMA, ReferenceDocument
from streamer.drift.status_document import DriftStatusDocument
from streamer.http.probe_answers import LivenessDocument, WorkersAway
from streamer.sampling.drift_api import ReferenceUpdate
from streamer.server.health import HealthDocument
from streamer.server.openapi.components import Components, answer, field_schema, operation
from streamer.server.shadow_routes import ShadowUpdate
from streamer.server.split_routes import SplitUpdate
from streamer.server.versions_document import ShadowDocument, SplitDocument, VersionsDocument

_REPORT_REFUSALS = {
    404: "There is no such group; `detail` names those that there are.",
    409: "There is no reference, no window with enough rows yet, or drift detection is off.",
    503: "Evidently is not installed or has failed, or the sampling process does not answer.",
}
_UPDATE_REFUSALS = {
    400: "A field, a row or a column is unknown or wrong; `detail` names it.",
    408: "The body did not arrive in time.",
    409: "Streams drift or there are too few rows to learn from, both of which `force` overrides; or drift "
    "detection is off.",
    413: "The body has more than 16 MiB.",
    415: "The content type is not `application/json`.",
    423: "Another update is running.",
    503: "The sampling process does not answer, or the file of the reference cannot be written.",
}
_SPLIT_REFUSALS = {
    400: "The share is missing, or no number from 0 to 1.",
    408: "The body did not arrive in time.",
    409: "No v2 is loaded, so v1 serves everybody; or a model is being changed.",
    413: "The body has more than 4 KiB.",
    415: "The content type is not `application/json`.",
    503: "Too many bytes of clients wait at the moment.",
}
_SPLIT_WORDS = (
    "Clients of `/predict`, `/stream`, `/webrtc` and `/whip` without a version get v2 with this share. "
    "The rest get v1. A client keeps its version; a higher share moves clients only from v1 to v2."
)
_SHADOW_REFUSALS = _SPLIT_REFUSALS | {
    409: "No v2 is loaded, so it can run no frames; or a model is being changed."
}
_SHADOW_WORDS = (
    "v2 runs this share of the frames that v1 has answered, for comparison only, while the device is idle. "
    "docs/shadow.md describes it."
)
_PICTURE_REFUSALS = {404: "The picture is not kept any more; `GET /versions` lists those that are."}
_UPDATE_WORDS = (
    "Drift detection compares the streams with a reference. This operation learns a new one from the rows of "
    "the last hours or from rows that the body contains, or takes over a whole reference. The answer says "
    "what was learned, and how far the streams are from the old and from the new reference at present. "
    "docs/drift.md describes drift detection."
)


def operation_paths(components: Components) -> dict[str, Any]:
    """Return the paths of health, metrics and drift."""
    return {
        "/health": {"get": _health(components)},
        "/livez": {"get": _livez(components)},
        "/metrics": {"get": _metrics(components)},
        "/versions": {"get": _versions(components)},
        "/versions/split": {"put": _split(components)},
        "/versions/shadow": {"put": _shadow(components)},
        "/versions/pictures/{picture}": {"get": _picture(components)},
        "/drift/status": {"get": _drift_status(components)},
        "/drift/report": {"get": _drift_report(components)},
        "/reference/update": {"post": _update(components)},
    }


def _health(components: Components) -> dict[str, Any]:
    health = components.json(HealthDocument)
    either = {"anyOf": [components.ref(HealthDocument), components.ref(WorkersAway)]}
    return operation(
        "health",
        "operations",
        "Whether this replica can serve",
        {
            "200": answer("The replica can serve.", health),
            "503": {
                "description": "The replica cannot serve at the moment; `reasons` says why. While no worker "
                "answers, the supervisor does.",
                "headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
                "content": {"application/json": {"schema": either}},
            },
            **components.refusals("GET", "/health"),
        },
        open_to_all=True,
    )


def _livez(components: Components) -> dict[str, Any]:
    content = components.json(LivenessDocument)
    return operation(
        "livez",
        "operations",
        "Whether this replica makes progress",
        {
            "200": {"description": "All processes run, or are being restarted.", "content": content},
            "503": {
                "description": "A process hangs and nothing restarts it: restart this replica.",
                "content": content,
            },
            **components.refusals("GET", "/livez"),
        },
        open_to_all=True,
    )


def _metrics(components: Components) -> dict[str, Any]:
    return operation(
        "metrics",
        "operations",
        "Prometheus metrics of all processes of this replica",
        {
            "200": answer(
                "Metrics in the text format of Prometheus. Only keys with the scope `admin` get the series "
                "that name streams.",
                {"text/plain": {"schema": {"type": "string"}}},
            ),
            **components.refusals("GET", "/metrics"),
        },
        open_to_all=True,
    )


def _versions(components: Components) -> dict[str, Any]:
    return operation(
        "versions",
        "operations",
        "The served models side by side: what they scored, and what was measured of them",
        {
            "200": answer(
                "What this replica serves. Only keys with the scope `admin` get names of classes and figures "
                "of traffic. Browsers that open the address get a page with the same figures.",
                components.json(VersionsDocument) | {"text/html": {"schema": {"type": "string"}}},
            ),
            **components.refusals("GET", "/versions"),
        },
        open_to_all=True,
    )


def _split(components: Components) -> dict[str, Any]:
    return operation(
        "split_update",
        "operations",
        "Change the share of clients that v2 serves",
        {
            "200": answer(
                "The shares, which all workers of this replica have.", components.json(SplitDocument)
            ),
            **components.refusals("PUT", "/versions/split", _SPLIT_REFUSALS),
        },
        description=_SPLIT_WORDS,
        requestBody={"required": True, "content": components.json(SplitUpdate)},
    )


def _shadow(components: Components) -> dict[str, Any]:
    return operation(
        "shadow_update",
        "operations",
        "Change the share of v1's frames that v2 runs, too",
        {
            "200": answer(
                "The share, which all workers of this replica have.", components.json(ShadowDocument)
            ),
            **components.refusals("PUT", "/versions/shadow", _SHADOW_REFUSALS),
        },
        description=_SHADOW_WORDS,
        requestBody={"required": True, "content": components.json(ShadowUpdate)},
    )


def _picture(components: Components) -> dict[str, Any]:
    images = ("image/jpeg", "image/png", "image/webp")
    return operation(
        "versions_picture",
        "operations",
        "A frame on which the two versions differ much",
        {
            "200": answer(
                "The picture as the client has sent it; of a video, a JPEG.",
                {kind: {"schema": {"type": "string", "format": "binary"}} for kind in images},
            ),
            **components.refusals("GET", "/versions/pictures/{picture}", _PICTURE_REFUSALS),
        },
        parameters=[
            {
                "name": "picture",
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": "Name of the picture, as in `comparison.pictures` of `GET /versions`.",
            },
        ],
    )


def _drift_status(components: Components) -> dict[str, Any]:
    return operation(
        "drift_status",
        "operations",
        "Whether the streams still look like their reference",
        {
            "200": answer(
                "The last status that the sampling process has published.",
                components.json(DriftStatusDocument),
            ),
            **components.refusals("GET", "/drift/status"),
        },
        open_to_all=True,
    )


def _drift_report(components: Components) -> dict[str, Any]:
    group = {
        "name": "group",
        "in": "query",
        "required": False,
        "schema": {"type": "string"},
        "description": "The group of streams that the report shows; by default the one that has moved most.",
    }
    return operation(
        "drift_report",
        "operations",
        "Evidently's report about one group of streams",
        {
            "200": answer(
                "The report as a page. It takes seconds to make, and is kept until the next check.",
                {"text/html": {"schema": {"type": "string"}}},
            ),
            **components.refusals("GET", "/drift/report", _REPORT_REFUSALS),
        },
        parameters=[group],
    )


def _update(components: Components) -> dict[str, Any]:
    rows = {"type": "array", "minItems": 1, "items": PLAIN_ROW_SCHEMA, "description": "Only the rows."}
    bodies = [components.ref(kind) for kind in (HistoryUpdate, RowsUpdate, ReferenceDocument)]
    flags = {name: field_schema(UpdateFlags, name) for name in UpdateFlags.model_fields}
    return operation(
        "reference_update",
        "operations",
        "Replace the reference that drift detection compares with",
        {
            "200": answer("What was learned.", components.json(ReferenceUpdate)),
            **components.refusals("POST", "/reference/update", _UPDATE_REFUSALS),
        },
        description=_UPDATE_WORDS,
        parameters=[
            {
                "name": name,
                "in": "query",
                "required": False,
                "schema": flag,
                "description": flag["description"],
            }
            for name, flag in flags.items()
        ],
        requestBody={
            "required": True,
            "content": {"application/json": {"schema": {"anyOf": [*bodies, rows]}}},
        },
    )
