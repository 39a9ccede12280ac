"""The HTTP status of each error of the scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from streamer.http.problem_details import Problem
from streamer.scheduling.errors import DeadlineExceeded, OverLimit, SchedulingError, UnknownVersion


def problem_of(error: SchedulingError) -> Problem:
    """Return the Problem for a scheduling error: 404, 429, 503 or 504."""
    if isinstance(error, UnknownVersion):
        return Problem.not_found(str(error))
    if isinstance(error, DeadlineExceeded):
        return Problem.deadline_exceeded("The deadline of this request has passed.")
    if isinstance(error, OverLimit):
        return Problem.too_many_requests(str(error), error.retry_after_s)
    return Problem.unavailable(str(error), error.retry_after_s)


@contextmanager
def refusals_as_problems() -> Iterator[None]:
    """Raise a Problem in place of a scheduling error."""
    try:
        yield
    except SchedulingError as refusal:
        raise problem_of(refusal) from refusal


@web.middleware
async def refusal_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert scheduling errors to problems; the last middleware, so that all others see only problems."""
    try:
        return await handler(request)
    except SchedulingError as refusal:
        raise problem_of(refusal) from refusal
