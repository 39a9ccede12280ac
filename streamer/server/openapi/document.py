"""The OpenAPI 3.1 document of the HTTP interface; `pages` serves it, the WebSocket is described in words."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streamer.server.openapi.drift import drift_paths
from streamer.server.openapi.operations import operation_paths, ticket_paths
from streamer.server.openapi.parts import VERSIONS
from streamer.server.openapi.predict import predict_paths
from streamer.server.openapi.schemas import answer_schemas
from streamer.server.openapi.video import video_paths


def openapi_document() -> dict[str, Any]:
    """Return the document as plain JSON types."""
    paths = predict_paths()
    for version_name in VERSIONS:
        paths |= video_paths(version_name)
    paths |= operation_paths() | drift_paths() | ticket_paths()
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
            "schemas": answer_schemas(),
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
