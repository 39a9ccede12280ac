"""The OpenAPI 3.1 document of the HTTP interface, which `pages` serves. Each file describes the routes of one
subject; the schemas come from the types that validate requests and build answers.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from streamer.accounting.ledger import VERSIONS
from streamer.server.openapi.components import Components
from streamer.server.openapi.operations import operation_paths
from streamer.server.openapi.predict import predict_paths
from streamer.server.openapi.version_changes import version_change_paths
from streamer.server.openapi.video import video_paths

_DESCRIPTION = (
    "Detects objects on images (POST), on live frames (WebSocket) and in video (WebRTC and WHIP).\n\n"
    "If the service refuses a request, it answers with a problem document (RFC 9457): `detail` is a sentence "
    "for people, `code` a word for programs. It does so for statuses that can occur on every route and are "
    "not listed with each of them, too, such as 405 for a method that a route does not have."
)
_TAGS = {
    "predict": "Detect objects on images.",
    "stream": "Detect objects on live frames, over a WebSocket.",
    "video": "Detect objects in video, over WebRTC or WHIP.",
    "operations": "Health, metrics and drift of the service.",
}


def openapi_document() -> dict[str, Any]:
    """Return the document as plain JSON types."""
    components = Components()
    paths = predict_paths(components)
    for version_name in (*VERSIONS, None):
        paths |= video_paths(components, version_name)
    paths |= operation_paths(components)
    paths |= version_change_paths(components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "real-time-vision-api",
            "version": _own_version(),
            "summary": "Streaming object detection",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"apiKey": []}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": components.describe(),
    }


def _own_version() -> str:
    try:
        return version("real-time-vision-api")
    except PackageNotFoundError:  # the package is not installed but run from a checkout
        return "0+unknown"
