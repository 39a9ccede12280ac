"""How refusals of the scheduler are told over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from streamer.http.problem_details import Problem
from streamer.scheduling.errors import DeadlineExceeded, OverLimit, SchedulingError, UnknownVersion


def problem_of(error: SchedulingError) -> Problem:
    """Return the answer for a refusal: 404, 429, 503 or 504."""
    if isinstance(error, UnknownVersion):
        return Problem.not_found(str(error))
    if isinstance(error, DeadlineExceeded):
        return Problem.deadline_exceeded("The deadline of this request has passed.")
    if isinstance(error, OverLimit):
        return Problem.too_many_requests(str(error), error.retry_after_s)
    return Problem.unavailable(str(error), error.retry_after_s)


@contextmanager
def refusals_as_problems() -> Iterator[None]:
    """Raise the Problem in place of the refusal."""
    try:
        yield
    except SchedulingError as refusal:
        raise problem_of(refusal) from refusal


@web.middleware
async def refusal_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let routes answer refusals as problems; the last middleware, so that all others see problems only."""
    try:
        return await handler(request)
    except SchedulingError as refusal:
        raise problem_of(refusal) from refusal
