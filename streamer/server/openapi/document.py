"""The OpenAPI 3.1 document of the HTTP interface; pages serves it, the WebSocket is described in words."""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streamer.drift.status import DriftStatus
from streamer.http.problem_details import PROBLEM_TYPE, REQUEST_ID_HEADER
from streamer.predict.parameters import MAX_DETECTIONS
from streamer.predict.responses import AnswerForm
from streamer.predict.routes import DEFAULT_VERSION, VERSION_HEADER
from streamer.sampling.process_handle import SamplingStatus
from streamer.server.openapi.access import ticket_paths
from streamer.server.openapi.drift import drift_paths, drift_schemas
from streamer.server.openapi.video import video_paths

_VERSIONS = ("v1", "v2")
_IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "application/octet-stream")
#: Status to what it means on the predict routes; the sentences of docs/http.md in short.
_PREDICT_PROBLEMS = {
    400: "No image, a malformed form, or a parameter that is unknown or out of range; names the field.",
    401: "API keys are configured and none, or a wrong one, was sent.",
    403: "The key has no scope `predict`, or pages of this origin may not use this server.",
    404: "No such model version.",
    406: "`Accept` allows none of the forms of the answer.",
    408: "The body did not arrive in time.",
    413: "More bytes, pixels or images than allowed; pixels are known from the header, before decoding.",
    415: "Not a JPEG, PNG or WebP image.",
    422: "The image cannot be decoded, or too little of it.",
    429: "The client is over its quota or its share, or too many wrong keys came from its address.",
    500: "The server failed.",
    503: "Saturated, warming up or shutting down; `Retry-After` says when to try again.",
    504: "The deadline of the request has passed.",
}
_STREAM_PROBLEMS = {
    400: "No subprotocol of the offered ones is known, or the request carries a body.",
    401: "A wrong API key.",
    403: "The key has no scope `stream`, or pages of this origin may not open streams.",
    404: "No such model version.",
    426: "Not an upgrade request.",
    429: "The client is over its quota or its share, or too many wrong keys came from its address.",
    503: "Warming up, shutting down, or a new stream would get too small a share.",
}
_STREAM_WORDS = (
    "Upgrades to a WebSocket that speaks `detect.v1`. The client offers the subprotocols it knows, "
    "`detect.v1.msgpack` or `detect.v1.json` (the default); it sends `hello`, then frames as binary "
    "messages, and gets one outcome for each: a result, a drop with a reason, or an error. "
    "See docs/protocol.md."
)
_PREDICT_WORDS = (
    "Send one image, as the body or as the form field `file`, or several (`file` repeated). Boxes are "
    "`[x1, y1, x2, y2]` in pixels of the upright original. With several images the answer is "
    '`{"results": […]}` in order, and a bad one has an `error` in its place. `Accept` chooses the form: '
    "JSON, msgpack of the same map, or for a single image a JPEG with its boxes drawn."
)

_VERSION_PARAMETER = {
    "name": VERSION_HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "enum": list(_VERSIONS), "default": DEFAULT_VERSION},
    "description": "Which model answers; a gateway that splits traffic sets it.",
}


def openapi_document() -> dict[str, Any]:
    """Return the document as plain JSON types."""
    paths: dict[str, Any] = {}
    for prefix, name in (("/v1", "v1"), ("/v2", "v2"), ("", None)):
        paths[f"{prefix}/predict"] = {"post": _predict(name)}
        paths[f"{prefix}/stream"] = {"get": _stream(name)}
    for name in _VERSIONS:
        paths |= video_paths(name, _problems)
    paths["/health"] = {"get": _health()}
    paths["/livez"] = {"get": _livez()}
    paths["/metrics"] = {"get": _metrics()}
    paths |= drift_paths(_problems)
    paths |= ticket_paths(_problems)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "real-time-vision-api",
            "version": _own_version(),
            "summary": "Streaming object detection",
            "description": "Object detection on images (POST), live frames (WebSocket) and video (WebRTC).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"apiKey": []}],
        "tags": [
            {"name": "predict", "description": "Images"},
            {"name": "stream", "description": "Live frames"},
            {"name": "video", "description": "Video over WebRTC and WHIP"},
            {"name": "operations", "description": "Probes and metrics"},
        ],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key with the scope that the operation needs, where keys are "
                    "configured; for streams and sessions a ticket of `POST /tickets` too.",
                }
            },
            "headers": {
                "RequestId": {
                    "description": "The request's id: the client's own where it sent a sane one.",
                    "schema": {"type": "string"},
                }
            },
        },
    }


def _own_version() -> str:
    try:
        return version("real-time-vision-api")
    except PackageNotFoundError:  # run from a checkout
        return "0+unknown"


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _id_header() -> dict[str, Any]:
    return {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}


def _problems(words: dict[int, str]) -> dict[str, Any]:
    return {
        str(status): {
            "description": f"{HTTPStatus(status).phrase}. {text}",
            "headers": _id_header()
            | ({"Retry-After": {"schema": {"type": "integer"}}} if status in (429, 503) else {}),
            "content": {PROBLEM_TYPE: {"schema": _ref("Problem")}},
        }
        for status, text in words.items()
    }


def _parameter_schemas() -> dict[str, dict[str, Any]]:
    return {
        "conf_threshold": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Least score of a detection; the model's own recommendation, else 0.25.",
        },
        "iou_threshold": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.45,
            "description": "Overlap above which the weaker of two boxes of a class is suppressed.",
        },
        "max_detections": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_DETECTIONS,
            "default": 300,
            "description": "Most detections of one image.",
        },
        "classes": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Labels or class ids to keep, comma-separated or repeated; all when absent.",
        },
        "collect": {
            "type": "boolean",
            "default": True,
            "description": "Whether these pictures may be kept as samples for labelling.",
        },
    }


def _predict(name: str | None) -> dict[str, Any]:
    target = f"model {name}" if name else "the model that the server chooses; the answer names its version"
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {
                "type": "array",
                "items": {"type": "string", "contentMediaType": "application/octet-stream"},
                "description": "JPEG, PNG or WebP; repeat the field for several images.",
            },
            **_parameter_schemas(),
        },
        "additionalProperties": False,
    }
    answer = {"schema": {"oneOf": [_ref("Prediction"), _ref("Predictions")]}}
    return {
        "operationId": f"predict_{name or 'any'}",
        "tags": ["predict"],
        "summary": f"Detect on images with {target}",
        "description": _PREDICT_WORDS,
        "parameters": [
            {
                "name": field,
                "in": "query",
                "required": False,
                "schema": schema,
                "description": schema["description"],
                **({"style": "form", "explode": False} if field == "classes" else {}),
            }
            for field, schema in _parameter_schemas().items()
        ]
        + ([] if name else [_VERSION_PARAMETER]),
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": form}} | dict.fromkeys(_IMAGE_TYPES, binary),
        },
        "responses": {
            "200": {
                "description": "Detections, highest score first.",
                "headers": _id_header(),
                "content": {
                    AnswerForm.JSON.value: answer,
                    AnswerForm.MSGPACK.value: answer,
                    AnswerForm.JPEG.value: binary,
                },
            },
            **_problems(_PREDICT_PROBLEMS),
        },
    }


def _stream(name: str | None) -> dict[str, Any]:
    return {
        "operationId": f"stream_{name or 'any'}",
        "tags": ["stream"],
        "summary": f"Detect on live frames{f' with model {name}' if name else ''} (WebSocket)",
        "description": _STREAM_WORDS,
        "parameters": [
            {
                "name": "Sec-WebSocket-Protocol",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "examples": ["detect.v1.msgpack, detect.v1.json"]},
            }
        ],
        "responses": {
            "101": {"description": "Switching Protocols. The WebSocket is open; send `hello`."},
            **_problems(_STREAM_PROBLEMS),
        },
    }


def _operation(name: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["operations"],
        "summary": summary,
        "security": [{}],
        "responses": responses,
    }


def _health() -> dict[str, Any]:
    content = {"application/json": {"schema": _ref("Health")}}
    return _operation(
        "health",
        "Whether this replica can serve",
        {
            "200": {"description": "It can.", "content": content},
            "503": {"description": "It cannot at the moment; `reasons` says why.", "content": content},
        },
    )


def _livez() -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return _operation(
        "livez",
        "Whether the inference loop's heart beats",
        {
            "200": {"description": "It beats, or is being brought back.", "content": content},
            "503": {"description": "It stands still: restart this replica.", "content": content},
        },
    )


def _metrics() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return _operation(
        "metrics",
        "Prometheus metrics of all processes of this replica",
        {"200": {"description": "Text exposition format.", "content": content}},
    )


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _schemas() -> dict[str, Any]:
    number, text, whole = {"type": "number"}, {"type": "string"}, {"type": "integer"}
    detection = _object(
        {
            "box": {
                "type": "array",
                "items": number,
                "minItems": 4,
                "maxItems": 4,
                "description": "x1, y1, x2, y2 in pixels of the upright original.",
            },
            "score": {"type": "number", "minimum": 0, "maximum": 1},
            "class_id": whole,
            "label": text,
        }
    )
    prediction = _object(
        {
            "model": _object({"version": {"enum": list(_VERSIONS)}, "name": text, "sha256": text}),
            "image": _object({"width": whole, "height": whole, "damaged": {"const": True}}, ("damaged",)),
            "detections": {"type": "array", "items": _ref("Detection")},
            "timings_ms": _object({"decode": number, "queue": number, "inference": number, "total": number}),
            "request_id": text,
        }
    )
    failed = _object({"error": _ref("Problem"), "request_id": text})
    results = {"type": "array", "items": {"oneOf": [_ref("Prediction"), _ref("FailedImage")]}}
    problem = _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": text,
            "status": whole,
            "detail": {"type": "string", "description": "What was found, what is allowed, what to do."},
            "code": {"type": "string", "description": "A stable word for programs."},
            "field": {"type": "string", "description": "The parameter or form field that is wrong."},
            "request_id": text,
        },
        optional=("field",),
    )
    health = _object(
        {
            "status": {
                "enum": [
                    *("ok", "starting", "loading", "warming", "restarting"),
                    *("hung", "draining", "saturated"),
                ]
            },
            "models": {"type": "object"},
            "device": {"type": ["string", "null"]},
            "samples": whole,
            "sampling": {"enum": [status.name.lower() for status in SamplingStatus]},
            "drift": {"enum": [status.name.lower() for status in DriftStatus]},
            "access": _object(
                {"keys": {"enum": ["required", "none"]}, "keys_file": {"enum": ["ok", "failed"]}},
                optional=("keys_file",),
            ),
            "decoders": _object({"alive": whole, "sandbox": {"type": "array", "items": text}}),
            "reasons": {"type": "array", "items": text},
        },
        optional=("reasons",),
    )
    return {
        "Detection": detection,
        "Prediction": prediction,
        "FailedImage": failed,
        "Predictions": _object({"results": results, "request_id": text}),
        "Problem": problem,
        "Health": health,
        **drift_schemas(),
    }
