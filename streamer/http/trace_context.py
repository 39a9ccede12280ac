"""Reads the trace context of a request (W3C Trace Context, level 2), for the log and for forwarded requests.

A request without a valid `traceparent` has no trace context; this module starts no traces of its own.
"""

from __future__ import annotations

import logging
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass

from aiohttp import web

from inference.core.log_format import LOG_FIELDS

log = logging.getLogger("streamer.requests")

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
#: Matches version, trace id, id of the caller's span and flags; versions after 00 may append further fields.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 0x01
#: Longer values of `tracestate` are not passed on, as section 3.3.1.5 allows.
_MAX_STATE_CHARS = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Holds the trace to which a request belongs."""

    #: 32 hexadecimal digits.
    trace_id: str
    #: Id of the caller's span, 16 hexadecimal digits.
    parent_id: str
    #: Eight flags; the lowest one says that the caller records the trace.
    flags: int
    #: The value of `tracestate`, which vendors define; empty if there is none.
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header that names the caller's span as the parent."""
        return f"00-{self.trace_id}-{self.parent_id}-{self.flags:02x}"

    def headers(self) -> dict[str, str]:
        """Return the headers that pass the trace context on."""
        found = {TRACEPARENT: self.traceparent}
        return found | {TRACESTATE: self.state} if self.state else found


#: Trace context of the request that the current task answers; None if the request has none.
_CURRENT: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)


def parse_traceparent(text: str, state: str = "") -> TraceContext | None:
    """Return the trace context of a `traceparent` header; None if it is not valid.

    ``state`` is the value of `tracestate`.
    """
    match = _TRACEPARENT.fullmatch(text.strip())
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(parent_id, 16):
        return None
    kept = state if len(state) <= _MAX_STATE_CHARS and state.isascii() and state.isprintable() else ""
    return TraceContext(trace_id, parent_id, int(flags, 16), kept)


def read_trace_context(request: web.BaseRequest) -> TraceContext | None:
    """Return the trace context of a request; None if it has no valid one or several `traceparent` headers."""
    offered = request.headers.getall(TRACEPARENT, ())
    if len(offered) != 1:
        return None
    return parse_traceparent(offered[0], ",".join(request.headers.getall(TRACESTATE, ())))


def current_trace_context() -> TraceContext | None:
    """Return the trace context of the request that this task answers; None if it has none."""
    return _CURRENT.get()


def trace_headers() -> dict[str, str]:
    """Return the headers that pass the current trace context on; empty if there is none."""
    context = _CURRENT.get()
    return {} if context is None else context.headers()


class TracedRequest:
    """Writes trace and request id into all log lines about a request, until `leave` is called."""

    def __init__(self, context: TraceContext, request_id: str) -> None:
        self._context = context
        self._request_id = request_id
        self._begun = time.monotonic()
        self._fields = {
            "trace_id": context.trace_id,
            "parent_id": context.parent_id,
            "request_id": request_id,
        }
        self._tokens = _CURRENT.set(context), LOG_FIELDS.set(self._fields)

    def leave(self) -> None:
        """Restore the earlier context and log fields, because the next request may run in the same task."""
        current, logged = self._tokens
        LOG_FIELDS.reset(logged)
        _CURRENT.reset(current)

    def log_answer(self, request: web.Request, status: int) -> None:
        """Log one line about the answered request if its caller records the trace."""
        if not self._context.is_sampled:
            return
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "an unknown route"
        spent_ms = (time.monotonic() - self._begun) * 1e3
        logged = LOG_FIELDS.set(self._fields)
        log.info(
            "request %s: %s %s answered %d in %.1f ms",
            self._request_id,
            request.method,
            route,
            status,
            spent_ms,
        )
        LOG_FIELDS.reset(logged)


def enter_trace(request: web.BaseRequest, request_id: str) -> TracedRequest | None:
    """Begin to log the trace of a request; return None if the request has no valid trace context."""
    context = read_trace_context(request)
    return None if context is None else TracedRequest(context, request_id)
