"""Describes the routes for images and live frames in the OpenAPI document."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from inference.core.detection_params import DetectionParams
from streamer.accounting.ledger import VERSIONS
from streamer.http.tickets import TicketDocument
from streamer.http.version_split import CLIENT_COOKIE, CLIENT_HEADER, VERSION_HEADER
from streamer.imaging.pixel_limits import ANY_ALLOWED
from streamer.imaging.png import SIGNATURE
from streamer.predict.json_body import IMAGE_TEXT, LIST_FIELDS, SINGLE_FIELDS
from streamer.predict.parameters import NAMES
from streamer.predict.responses import AnswerForm, PredictionDocument, PredictionsDocument
from streamer.protocol.client_messages import Params, StreamOffer
from streamer.server.openapi.components import Components, answer, field_schema, operation, version_header

_IMAGE_TYPES = (
    *(f"image/{name}" for name in ("jpeg", "png", "webp", "heic", "heif", "avif")),
    "application/octet-stream",
)
#: Side of the image in the example of a JSON body.
_EXAMPLE_SIDE_PX = 32
#: What a status means on the predict routes; docs/http.md says more.
_PREDICT_REFUSALS = {
    400: "The request has no image, its form or JSON is malformed, or a parameter, which `field` names, is "
    "unknown or out of range, or an image is at a URL from which the service does not fetch.",
    404: "There is no such model version.",
    406: "The service has no form of the answer that `Accept` allows.",
    408: "The body did not arrive in time.",
    413: "The request has more bytes, pixels or images than allowed. The service reads the size of an image "
    "from its header, before it decodes any pixel.",
    415: f"The image is no {ANY_ALLOWED}, a data URL states another type than it holds, or the request has "
    "another content type than those below, or a `Content-Encoding`.",
    422: "The image cannot be decoded, or only a small part of it, or it cannot be fetched from its URL.",
    429: "The client has reached its quota, or its share of the service while others are served.",
    500: "The service has failed. Its log has the reason under the id of the request.",
    503: "The service is saturated, warming up or shutting down.",
    504: "The deadline of the request has passed before the model could run.",
}
_STREAM_REFUSALS = {
    400: "The service knows none of the offered subprotocols, or the request has a body.",
    404: "There is no such model version.",
    426: "The request does not ask for an upgrade to a WebSocket.",
    429: "The client has reached its quota, or its share of the service while others are served.",
    503: "The service is warming up or shutting down, or it could grant a new stream only few frames.",
}
_TICKET_REFUSALS = {429: "Too many tickets of this client have not been used yet."}
_STREAM_WORDS = (
    "Opens a WebSocket that speaks `detect.v1`. The client offers the subprotocols that it knows, "
    "`detect.v1.msgpack` or `detect.v1.json` (the default). It sends `hello` and then frames as binary "
    "messages. It gets one outcome for each frame: a result, a drop with its reason, or an error. "
    "docs/protocol.md describes all messages."
)
_PREDICT_WORDS = (
    "Send one image as the body or as the form field `file`, or several images as several fields `file`; the "
    "names `files`, `image` and `images` mean the same. A JSON body has one image in `image`, or several in "
    "`images`, each as base64, a data URL or, if the service allows the host, a URL. Parameters are in the "
    "query, in fields of the form, or in the JSON object. Boxes are `[x1, y1, x2, y2]` in pixels of the "
    'upright original. The answer to several images is `{"results": […]}` in the order in which they were '
    "sent; an image that failed has an `error` in its place. `Accept` chooses the form of the answer: JSON, "
    "msgpack with the same content, or, for a single image, a JPEG with its boxes drawn."
)
_TICKET_WORDS = (
    "For browsers, which cannot set headers on a WebSocket. A page sends the ticket in place of a key: in "
    "`hello.token`, or as the subprotocol `ticket.<ticket>` beside `detect.v1.json`. A ticket is valid for "
    "one stream or session, once, for a minute."
)
#: Parameters of routes without a version.
SPLIT_PARAMETERS = [
    {
        "name": VERSION_HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "enum": list(VERSIONS)},
        "description": "The model version that answers. A gateway that splits traffic between versions sets "
        "it. By default the service chooses.",
    },
    {
        "name": CLIENT_HEADER,
        "in": "header",
        "required": False,
        "schema": {"type": "string", "minLength": 1},
        "description": "A name of the client, which keeps its version for as long as the share of v2 stays. "
        f"Clients that send none get the cookie `{CLIENT_COOKIE}` while there is a share.",
    },
]
_SUBPROTOCOL_PARAMETER = {
    "name": "Sec-WebSocket-Protocol",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "examples": ["detect.v1.msgpack, detect.v1.json"]},
    "description": "The subprotocols that the client knows, the preferred one first.",
}


def predict_paths(components: Components) -> dict[str, Any]:
    """Return the paths for images and live frames, for each version and without a version."""
    paths: dict[str, Any] = {}
    for name in (*VERSIONS, None):
        prefix = f"/{name}" if name else ""
        paths[f"{prefix}/predict"] = {"post": _predict(components, name)}
        paths[f"{prefix}/stream"] = {"get": _stream(components, name)}
    return paths | {"/tickets": {"post": _ticket(components)}}


def query_parameters() -> list[dict[str, Any]]:
    """Return the parameters of a detection as parameters of a query."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "schema": schema,
            "description": schema["description"],
            **({"style": "form", "explode": False} if name == "classes" else {}),
        }
        for name, schema in _parameter_schemas().items()
    ]


def _parameter_schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas of the parameters, from the models that validate the same fields of a stream."""
    defaults = DetectionParams()
    # In a query every value is text. A class id among the labels is recognised because it consists of digits.
    classes = field_schema(Params, "classes") | {"items": {"type": "string"}}
    found = {
        "conf_threshold": field_schema(Params, "conf_threshold"),
        "iou_threshold": field_schema(Params, "iou_threshold") | {"default": defaults.iou_threshold},
        "max_detections": field_schema(Params, "max_detections") | {"default": defaults.max_detections},
        "classes": classes
        | {"description": "Labels or class ids to keep, separated by commas or repeated; all when absent."},
        "agnostic_nms": field_schema(Params, "agnostic_nms"),
        "collect": field_schema(StreamOffer, "collect"),
    }
    return {name: found[name] for name in NAMES}


def _predict(components: Components, name: str | None) -> dict[str, Any]:
    target = f"model {name}" if name else "the version that the service chooses for the client"
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    # A form may have the parameters as fields, too. They are not listed here, because Swagger UI would then
    # send each of them twice, in the query and in the form.
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": f"A {ANY_ALLOWED} image. Repeat the field for several images.",
            },
        },
    }
    found = {
        "schema": {"oneOf": [components.ref(PredictionDocument), components.ref(PredictionsDocument)]},
    }
    content = {AnswerForm.JSON.value: found, AnswerForm.MSGPACK.value: found, AnswerForm.JPEG.value: binary}
    return operation(
        f"predict_{name or 'any'}",
        "predict",
        f"Detect objects on images with {target}",
        {
            "200": answer("The detections, highest score first.", content, versioned=True),
            **components.refusals("POST", _route("predict", name), _PREDICT_REFUSALS),
        },
        description=_PREDICT_WORDS,
        parameters=query_parameters() + ([] if name else SPLIT_PARAMETERS),
        requestBody={
            "required": True,
            "content": {"multipart/form-data": {"schema": form}}
            | dict.fromkeys(_IMAGE_TYPES, binary)
            | {"application/json": {"schema": _json_schema(), "example": {"image": _example_image()}}},
        },
    )


def _json_schema() -> dict[str, Any]:
    image = {"type": "string", "minLength": 1, "description": f"An image: {IMAGE_TEXT}."}
    images = {
        "type": "array",
        "minItems": 1,
        "items": image,
        "description": "Several images; their results come in the same order.",
    }
    return {
        "type": "object",
        "oneOf": [{"required": [name]} for name in (*SINGLE_FIELDS, *LIST_FIELDS)],
        "properties": {
            **dict.fromkeys(SINGLE_FIELDS, image),
            **dict.fromkeys(LIST_FIELDS, images),
            **_parameter_schemas(),
        },
        "additionalProperties": False,
    }


def _example_image() -> str:
    """Return a small grey PNG as a data URL, so that the example of the JSON body can be sent as it is."""
    rows = zlib.compress(b"\x00".join([b"", *[b"\x80" * _EXAMPLE_SIDE_PX] * _EXAMPLE_SIDE_PX]), 9)
    header = struct.pack(">IIBBBBB", _EXAMPLE_SIDE_PX, _EXAMPLE_SIDE_PX, 8, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    )
    return f"data:image/png;base64,{base64.b64encode(SIGNATURE + chunks).decode()}"


def _stream(components: Components, name: str | None) -> dict[str, Any]:
    return operation(
        f"stream_{name or 'any'}",
        "stream",
        f"Detect objects on live frames{f' with model {name}' if name else ''} (WebSocket)",
        {
            "101": {
                "description": "Switching Protocols. The WebSocket is open; send `hello`.",
                "headers": version_header(),
            },
            **components.refusals("GET", _route("stream", name), _STREAM_REFUSALS),
        },
        description=_STREAM_WORDS,
        parameters=[_SUBPROTOCOL_PARAMETER, *([] if name else SPLIT_PARAMETERS)],
    )


def _ticket(components: Components) -> dict[str, Any]:
    return operation(
        "take_ticket",
        "stream",
        "Take a ticket that opens one stream",
        {
            "201": answer("The ticket.", components.json(TicketDocument)),
            **components.refusals("POST", "/tickets", _TICKET_REFUSALS),
        },
        description=_TICKET_WORDS,
    )


def _route(kind: str, name: str | None) -> str:
    """Return a route as `route_policy` writes it."""
    return f"/{{version}}/{kind}" if name else f"/{kind}"
