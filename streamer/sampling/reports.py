"""Sends the frames that people report to the sampling process, and returns its decisions.

A report is a request (`process_handle.call`) and not one of the candidates of `sample_sender`: it waits
behind no candidate, and the person gets an answer only after the sample is on the disk, or the reason why it
is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamer.sampling.candidate import SampleCandidate, pack_candidate
from streamer.sampling.process_handle import SamplingProcessUnavailable, call

#: Method of the request.
REPORT_METHOD = "report_frame"
#: Limits of the reports of one worker that wait for an answer.
MAX_WAITING = 32
MAX_WAITING_BYTES = 64 << 20
#: A report without an answer after this time is answered with ``unavailable``. A sampling process may need as
#: long to start after a crash.
ANSWER_TIMEOUT_S = 30.0
#: Pause before the report is sent to the process that replaces one that has ended.
RETRY_S = 0.5

#: Why a report is refused, and what the person is told.
REFUSALS = {
    "duplicate": "this frame is kept already",
    "rate": "too many frames were reported",
    "off": "reports are turned off here (SAMPLES_REPORTS_PER_HOUR=0)",
    "spool_full": "there is no room for more samples",
    "disk_error": "the disk for samples fails",
    "no_spool": "the folder for samples cannot be used",
    "damaged": "the image cannot be read",
    "busy": "too many reports wait for an answer",
    "unavailable": "no answer came in time, so the frame may be kept or not",
}


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """Says what became of a report."""

    #: True only if the sample is on the disk.
    taken: bool
    #: Id of the sample; of the earlier one if the reason is ``duplicate``, else empty if it was not taken.
    sample: str = ""
    #: One of REFUSALS; empty if the report was taken.
    reason: str = ""
    #: Seconds after which a report would be taken again; 0 if that is unknown.
    retry_s: float = 0.0

    @property
    def message(self) -> str:
        """The reason in words."""
        return REFUSALS.get(self.reason, "")


def refused(reason: str, *, sample: str = "", retry_s: float = 0.0) -> ReportOutcome:
    """Return the outcome of a refused report; ``reason`` is one of REFUSALS."""
    return ReportOutcome(taken=False, sample=sample, reason=reason, retry_s=retry_s)


class ReportSender:
    """Sends reports in tasks of the event loop."""

    def __init__(self, address: str, dropped: Callable[[str], None]) -> None:
        """Send to the sampling process at ``address``.

        ``dropped`` is called with ``busy`` or ``no_observer`` for each report that the process did not
        answer.
        """
        self._address = address
        self._dropped = dropped
        self._waiting = self._waiting_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, candidate: SampleCandidate, answer: Callable[[ReportOutcome], None]) -> None:
        """Send a report without waiting; call ``answer`` once, later, with its outcome."""
        loop, size = asyncio.get_running_loop(), candidate.size_bytes
        if self._waiting >= MAX_WAITING or self._waiting_bytes + size > MAX_WAITING_BYTES:
            self._dropped("busy")
            loop.call_soon(answer, refused("busy"))
            return
        self._waiting += 1
        self._waiting_bytes += size
        task = loop.create_task(self._run(candidate, answer), name="report")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancel the reports that wait; nobody is left to get their answers."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, candidate: SampleCandidate, answer: Callable[[ReportOutcome], None]) -> None:
        try:
            outcome = await self._send(candidate)
        finally:
            self._waiting -= 1
            self._waiting_bytes -= candidate.size_bytes
        answer(outcome)

    async def _send(self, candidate: SampleCandidate) -> ReportOutcome:
        # Converting the pixels of a video takes milliseconds.
        packed = await asyncio.to_thread(pack_candidate, candidate)
        request: dict[str, Any] = {"method": REPORT_METHOD, "candidate": packed, "repeated": False}
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while (left_s := deadline - time.monotonic()) > 0:
            with contextlib.suppress(SamplingProcessUnavailable):
                response = await call(self._address, request, left_s)
                return ReportOutcome(**response["result"])
            # The process has ended before it answered, perhaps after it has kept the frame.
            request["repeated"] = True
            await asyncio.sleep(RETRY_S)
        self._dropped("no_observer")
        return refused("unavailable")


def outcome_fields(outcome: ReportOutcome) -> dict[str, Any]:
    """Return the outcome in types of msgpack, for the response to the worker."""
    return dataclasses.asdict(outcome)
