"""Each refusal by the scheduler becomes an HTTP status, and the ledger counts it by its kind."""

from __future__ import annotations

import pytest

from streamer.accounting.metrics import WorkerMetrics
from streamer.http.problem_details import Problem
from streamer.predict.refusals import problem_of, refusals_as_problems
from streamer.protocol.wire import DropReason
from streamer.scheduling.admission import Admission
from streamer.scheduling.clients import Clients
from streamer.scheduling.errors import (
    DeadlineExceeded,
    OverLimit,
    Saturated,
    SchedulingError,
    Unavailable,
    UnknownVersion,
)

ERRORS: dict[str, tuple[SchedulingError, int, DropReason | None]] = {
    "unknown": (UnknownVersion("No model version 'v9' is served here."), 404, None),
    "over limit": (OverLimit("Too many.", 7), 429, DropReason.RATE),
    "saturated": (Saturated("Too much waits.", 7), 503, DropReason.OVERLOAD),
    "unavailable": (Unavailable("The processes were lost twice.", 7), 503, None),
    "too late": (DeadlineExceeded(), 504, DropReason.STALE),
}


@pytest.mark.parametrize("name", ERRORS)
def test_each_refusal_has_a_status(name: str) -> None:
    error, status, _ = ERRORS[name]
    problem = problem_of(error)
    assert problem.status == status
    assert problem.headers.get("Retry-After") == ("7" if status in (429, 503) else None)
    with pytest.raises(Problem, match=problem.detail) as caught, refusals_as_problems():
        raise error
    assert caught.value.status == status


@pytest.mark.parametrize("name", ERRORS)
def test_each_refusal_is_accounted_by_its_kind_and_not_by_its_status(name: str) -> None:
    error, _, reason = ERRORS[name]
    admission = Admission(WorkerMetrics(), ("v1",), Clients("secret"), queue_max=8, queue_s=1.0, min_fps=5.0)
    with pytest.raises(type(error)), admission.accounted("v1"):
        raise error
    admission.count_refused("v1", error)
    ledger = admission._ledgers["v1"]
    assert (ledger.received, ledger.in_flight) == (2, 0)
    assert ledger.failed == (2 if reason is None else 0)
    assert ledger.dropped == ({} if reason is None else {reason: 2})
