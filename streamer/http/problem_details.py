"""Answers errors as `application/problem+json` (RFC 9457); code that refuses a request raises a Problem."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Literal, Unpack

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import Field
from typing_extensions import TypedDict

from streamer.http.trace_context import TRACEPARENT, enter_trace

log = logging.getLogger("streamer.problems")

PROBLEM_TYPE = "application/problem+json"
REQUEST_ID = web.RequestKey("request_id", str)
REQUEST_ID_HEADER = "X-Request-Id"
#: A request id that a client sends is logged, so it must be short and printable.
MAX_REQUEST_ID_CHARS = 128


class ProblemExtras(TypedDict, total=False):
    """Members that only some problems have."""

    field: Annotated[str, Field(description="Name of the parameter or field that is wrong.")]
    found: Annotated[str, Field(description="The value that was found, cut to 100 characters.")]
    allowed: Annotated[str | list[str], Field(description="What is allowed, in words or as a list of names.")]
    needed: Annotated[str, Field(description="The scope that the API key lacks.")]


class ProblemDocument(ProblemExtras):
    """Why a request was refused, as a problem document (RFC 9457)."""

    type: Annotated[
        Literal["about:blank"],
        Field(description="Always `about:blank`: the status says of which kind the problem is."),
    ]
    title: Annotated[str, Field(description="The phrase of the HTTP status.")]
    status: Annotated[int, Field(ge=400, le=599, description="The HTTP status.")]
    detail: Annotated[
        str, Field(description="A sentence for people: what was found, what is allowed, and what to do.")
    ]
    code: Annotated[str, Field(description="A stable word for programs, such as `invalid_parameter`.")]
    request_id: Annotated[str, Field(description="The id of the request; the log has it too.")]


class Problem(Exception):
    """Reports an error to the client. ``detail`` is a sentence that a person can act on.

    ``type`` is always ``about:blank``, because the status says what kind of error it is. ``code`` is a stable
    word for programs. ``extra`` holds members that only some problems have.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Unpack[ProblemExtras],
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra: ProblemExtras = extra

    def members(self, request_id: str) -> ProblemDocument:
        """Return the members of the problem document."""
        return {
            "type": "about:blank",
            "title": _title(self.status),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
            "request_id": request_id,
        }

    def response(self, request_id: str) -> web.Response:
        """Return the HTTP answer."""
        body = json.dumps(self.members(request_id), ensure_ascii=False, separators=(",", ":"))
        headers = {"Cache-Control": "no-store", REQUEST_ID_HEADER: request_id} | self.headers
        return web.Response(
            body=body.encode(errors="replace"), status=self.status, headers=headers, content_type=PROBLEM_TYPE
        )

    # -- errors of the client ------------------------------------------------------------------------

    @classmethod
    def bad_request(cls, detail: str, code: str = "bad_request", **extra: Unpack[ProblemExtras]) -> Problem:
        """Return problem 400: the request is malformed, or lacks something that it needs."""
        return cls(400, code, detail, **extra)

    @classmethod
    def invalid_parameter(cls, field: str, found: str, allowed: str) -> Problem:
        """Return problem 400: the parameter ``field`` is wrong. The value found is cut to 100 characters."""
        shown = found if len(found) <= 100 else found[:99] + "…"
        return cls(
            400,
            "invalid_parameter",
            f"Field `{field}` is {shown!r}; allowed: {allowed}.",
            field=field,
            found=shown,
            allowed=allowed,
        )

    @classmethod
    def unauthorized(cls, detail: str) -> Problem:
        """Return problem 401: the key is missing or wrong."""
        return cls(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})

    @classmethod
    def forbidden(cls, detail: str) -> Problem:
        """Return problem 403: the client may not do this."""
        return cls(403, "forbidden", detail)

    @classmethod
    def not_found(cls, detail: str) -> Problem:
        """Return problem 404: the resource does not exist."""
        return cls(404, "not_found", detail)

    @classmethod
    def not_acceptable(cls, detail: str) -> Problem:
        """Return problem 406: the answer is not available in a media type that ``Accept`` allows."""
        return cls(406, "not_acceptable", detail)

    @classmethod
    def body_timeout(cls, detail: str) -> Problem:
        """Return problem 408: the body did not arrive in time."""
        return cls(408, "body_timeout", detail)

    @classmethod
    def too_large(cls, detail: str) -> Problem:
        """Return problem 413: the request has more bytes, pixels or images than allowed."""
        return cls(413, "too_large", detail)

    @classmethod
    def unsupported_media(cls, detail: str) -> Problem:
        """Return problem 415: this media type is not accepted."""
        return cls(415, "unsupported_media", detail)

    @classmethod
    def damaged(cls, detail: str) -> Problem:
        """Return problem 422: the image cannot be decoded."""
        return cls(422, "damaged_image", detail)

    @classmethod
    def upgrade_required(cls, detail: str) -> Problem:
        """Return problem 426: this path accepts only WebSocket connections."""
        return cls(426, "upgrade_required", detail, headers={"Upgrade": "websocket", "Connection": "Upgrade"})

    @classmethod
    def too_many_requests(cls, detail: str, retry_after_s: int) -> Problem:
        """Return problem 429: this client sends too many requests."""
        return cls(429, "too_many_requests", detail, headers={"Retry-After": str(retry_after_s)})

    # -- errors of the server ------------------------------------------------------------------------

    @classmethod
    def internal(cls, detail: str = "The server failed on this request; the log has the reason.") -> Problem:
        """Return problem 500: the server failed; the answer reveals nothing internal."""
        return cls(500, "internal_error", detail)

    @classmethod
    def unavailable(cls, detail: str, retry_after_s: int) -> Problem:
        """Return problem 503: the service is saturated, warming up or shutting down.

        The client may retry after ``retry_after_s`` seconds.
        """
        return cls(503, "unavailable", detail, headers={"Retry-After": str(retry_after_s)})

    @classmethod
    def deadline_exceeded(cls, detail: str) -> Problem:
        """Return problem 504: the request's deadline has passed."""
        return cls(504, "deadline_exceeded", detail)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def request_id(request: web.Request) -> str:
    """Return the request's id: the client's if it is valid, else a new one; it is the same in every call."""
    known = request.get(REQUEST_ID)
    if known is None:
        offered = request.headers.get(REQUEST_ID_HEADER, "")
        valid = offered and len(offered) <= MAX_REQUEST_ID_CHARS and offered.isprintable()
        known = offered if valid else os.urandom(8).hex()
        request[REQUEST_ID] = known
    return known


def _from_http_exception(error: web.HTTPException) -> Problem:
    """Convert an exception of aiohttp (no route, wrong method, body too large) to a Problem."""
    title = _title(error.status)
    details = {
        404: "There is nothing at this address; /docs lists what there is.",
        405: f"This address does not take this method; allowed: {error.headers.get('Allow', '')}.",
        413: "The body is larger than allowed.",
    }
    if error.status == 400 and error.text:  # aiohttp says what a WebSocket upgrade lacks
        details[400] = f"{' '.join(error.text.split())[:200].rstrip('.')}."
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After") if name in error.headers}
    return Problem(
        error.status,
        title.lower().replace(" ", "_"),
        details.get(error.status, f"{title}."),
        headers=headers,
    )


@web.middleware
async def problem_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error as problem+json with the request's id; re-raise it once a WebSocket is open."""
    identifier = request_id(request)
    trace = enter_trace(request, identifier) if TRACEPARENT in request.headers else None
    try:
        response = await handler(request)
    except Problem as error:
        if _has_answered(request):
            raise
        response = error.response(identifier)
        _forget_frames(error)
    except web.HTTPException as error:
        if _has_answered(request) or error.status < 400:
            raise
        response = _from_http_exception(error).response(identifier)
    except Exception:
        log.exception("request %s to %s failed", identifier, request.rel_url.raw_path[:200])
        if _has_answered(request):
            raise
        response = Problem.internal().response(identifier)
    finally:
        if trace is not None:
            trace.leave()
    if trace is not None:
        trace.log_answer(request, response.status)
    return _complete(response, identifier)


def _complete(response: web.StreamResponse, identifier: str) -> web.StreamResponse:
    """Return an answer with the request's id added; close its connection after a 408."""
    if response.status == 408:
        response.force_close()  # the rest of the body will not be read
    if not response.prepared:
        response.headers.setdefault(REQUEST_ID_HEADER, identifier)
    return response


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error that was answered, and of its causes.

    A traceback holds the frames, which hold the body of the request. If a frame also holds a future with the
    error, this is a cycle, which only the garbage collector would free.
    """
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            pending += (each.__cause__, each.__context__)


def _has_answered(request: web.Request) -> bool:
    """Return whether response headers have been sent already, as after a WebSocket upgrade."""
    return request.writer.output_size > 0
