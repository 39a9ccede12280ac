"""Maps each error of the scheduler and each refused image to a Problem with an HTTP status."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from streamer.http.problem_details import Problem
from streamer.imaging.image_header import ImageError, ImageErrorCode
from streamer.scheduling.errors import DeadlineExceeded, OverLimit, SchedulingError, UnknownVersion
from streamer.scheduling.job import Prediction


def problem_of(error: SchedulingError) -> Problem:
    """Return the Problem for a scheduling error: 404, 429, 503 or 504."""
    if isinstance(error, UnknownVersion):
        return Problem.not_found(str(error))
    if isinstance(error, DeadlineExceeded):
        return Problem.deadline_exceeded("The deadline of this request has passed.")
    if isinstance(error, OverLimit):
        return Problem.too_many_requests(str(error), error.retry_after_s)
    return Problem.unavailable(str(error), error.retry_after_s)


def problem_of_image(error: ImageError) -> Problem:
    """Return the Problem for an image that was refused: 400, 413, 415 or 422."""
    sentence = error.detail[0].upper() + error.detail[1:] + "."
    if error.code is ImageErrorCode.EMPTY:
        return Problem.bad_request(sentence, code="no_image", field="file")
    if error.code is ImageErrorCode.TOO_LARGE:
        return Problem.too_large(sentence)
    if error.code is ImageErrorCode.UNSUPPORTED:
        return Problem.unsupported_media(sentence)
    return Problem.damaged(sentence)


def raise_if_all_ours(outcomes: Sequence[Prediction | Problem]) -> None:
    """Raise the first Problem if every image of a request failed through an error of the server."""
    problems = [outcome for outcome in outcomes if isinstance(outcome, Problem)]
    if len(problems) == len(outcomes) and all(problem.status >= 500 for problem in problems):
        raise problems[0]


@contextmanager
def refusals_as_problems() -> Iterator[None]:
    """Raise a Problem for each scheduling error that the block raises."""
    try:
        yield
    except SchedulingError as refusal:
        raise problem_of(refusal) from refusal


@web.middleware
async def refusal_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Convert scheduling errors to problems.

    This is the innermost middleware, so all others see only problems.
    """
    try:
        return await handler(request)
    except SchedulingError as refusal:
        raise problem_of(refusal) from refusal
