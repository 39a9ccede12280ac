"""The routes for images and live frames in the OpenAPI document."""

from __future__ import annotations

from typing import Any

from inference.core.detection_params import DetectionParams
from streamer.predict.parameters import NAMES
from streamer.predict.responses import AnswerForm
from streamer.predict.routes import DEFAULT_VERSION, VERSION_HEADER
from streamer.protocol.client_messages import Params, StreamOffer
from streamer.server.openapi.parts import VERSIONS, field_schema, id_header, problems, ref

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
    "schema": {"type": "string", "enum": list(VERSIONS), "default": DEFAULT_VERSION},
    "description": "Which model answers; a gateway that splits traffic sets it.",
}


def predict_paths() -> dict[str, Any]:
    """Return the paths for images and live frames: those of each version, and those that choose one."""
    paths: dict[str, Any] = {}
    for prefix, name in (("/v1", "v1"), ("/v2", "v2"), ("", None)):
        paths[f"{prefix}/predict"] = {"post": _predict(name)}
        paths[f"{prefix}/stream"] = {"get": _stream(name)}
    return paths


def _parameter_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of the parameters, from the models that validate the same fields of a stream."""
    defaults = DetectionParams()
    # In a query every value is text; a class id among the labels is recognised by its digits.
    classes = field_schema(Params, "classes") | {"items": {"type": "string"}}
    found = {
        "conf_threshold": field_schema(Params, "conf_threshold"),
        "iou_threshold": field_schema(Params, "iou_threshold") | {"default": defaults.iou_threshold},
        "max_detections": field_schema(Params, "max_detections") | {"default": defaults.max_detections},
        "classes": classes
        | {"description": "Labels or class ids to keep, comma-separated or repeated; all when absent."},
        "collect": field_schema(StreamOffer, "collect"),
    }
    return {name: found[name] for name in NAMES}


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
    answer = {"schema": {"oneOf": [ref("Prediction"), ref("Predictions")]}}
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
                "headers": id_header(),
                "content": {
                    AnswerForm.JSON.value: answer,
                    AnswerForm.MSGPACK.value: answer,
                    AnswerForm.JPEG.value: binary,
                },
            },
            **problems(_PREDICT_PROBLEMS),
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
            **problems(_STREAM_PROBLEMS),
        },
    }
