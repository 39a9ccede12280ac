"""Sends the requests of the recordings one after the other and records the answers."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

import msgpack

from tests.helpers.openapi_check import RealAnswer
from tests.recordings.normalise import REQUEST_ID, normalise, normalise_headers, normalise_text
from tests.recordings.predict_requests import REQUESTS as PREDICT_REQUESTS
from tests.recordings.requests import Request, key_text
from tests.recordings.video_requests import REQUESTS as VIDEO_REQUESTS

TIMEOUT_S = 120.0
REQUESTS = [*PREDICT_REQUESTS, *VIDEO_REQUESTS]
#: Paths whose answers are recorded in full in separate files.
_RECORDED_ELSEWHERE = ("/openapi.json", "/metrics")


class Exchanges:
    """Sends requests to one service and keeps values of earlier answers that later requests need."""

    def __init__(self, port: int) -> None:
        self._port = port
        #: Ids of sessions, the last entity tag and the last ticket, by the placeholder that requests use.
        self._given: dict[str, str] = {}
        #: The unmodified answers, for a comparison with the OpenAPI document.
        self.answers: list[RealAnswer] = []

    def record(self) -> dict[str, Any]:
        """Send all requests and return each exchange by the request's name."""
        names = [request.name for request in REQUESTS]
        if len(set(names)) != len(names):
            raise ValueError("two requests of the recordings have the same name")
        return {request.name: self.exchange(request) for request in REQUESTS}

    def exchange(self, request: Request) -> dict[str, Any]:
        """Send one request and return it with the status, headers and body of its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            path = self._fill(request.path)
            connection.request(request.method, path, request.body.content or None, self._headers(request))
            response = connection.getresponse()
            events = response.headers.get_content_type() == "text/event-stream"
            # A stream of events does not end, so read only its first line.
            body = response.readline() if events else response.read()
            self._remember(response, body)
            self.answers.append(
                RealAnswer(request.method, path, response.status, response.headers, body)  # type: ignore[arg-type]
            )
            return {
                "request": f"{request.method} {request.path}",
                "key": request.key,
                "sent": request.body.name,
                "request_headers": dict(request.headers),
                "status": response.status,
                "headers": normalise_headers(response.getheaders()),
                "body": _describe(request.path, response.headers.get_content_type(), body),
            }
        finally:
            connection.close()

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"X-Request-Id": REQUEST_ID}
        if request.key:
            headers["Authorization"] = f"Bearer {key_text(request.key)}"
        if request.body.content_type:
            headers["Content-Type"] = request.body.content_type
        return headers | {name: self._fill(value) for name, value in request.headers.items()}

    def _fill(self, text: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: self._given.get(found[1], "missing"), text)

    def _remember(self, response: http.client.HTTPResponse, body: bytes) -> None:
        location = response.headers.get("Location", "")
        if location:
            kind, identifier = location.split("/")[-2:]
            self._given[kind] = identifier
            self._given["etag"] = response.headers["ETag"]
        if response.status == 201 and b'"ticket"' in body:
            self._given["ticket"] = json.loads(body)["ticket"]


def _describe(path: str, content_type: str, body: bytes) -> Any:
    """Return the normalised body; for files and images only a note that there is content."""
    if not body:
        return None
    if path in _RECORDED_ELSEWHERE and content_type != "application/problem+json":
        return "<recorded in a file of its own>"
    if content_type in ("application/json", "application/problem+json"):
        return normalise(json.loads(body))
    if content_type == "application/msgpack":
        return normalise(msgpack.unpackb(body))
    if content_type in ("application/sdp", "text/event-stream"):
        text = body.decode()
        return normalise(text, "sdp") if content_type == "application/sdp" else normalise_text(text)
    return "<content>"
