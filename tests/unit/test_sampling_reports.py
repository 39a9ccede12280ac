"""A report is kept beside any load, and its answer says what became of it, once this is sure."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from inference.ipc import unix_socket
from streamer.imaging.image_header import ImageError, ImageErrorCode
from streamer.sampling import reports
from streamer.sampling.candidate import SampleCandidate, unpack_candidate
from streamer.sampling.collector import DISK_PAUSE_S, Collector
from streamer.sampling.errors import SpoolBroken
from streamer.sampling.metrics import SamplingMetrics
from streamer.sampling.policy import Policy
from streamer.sampling.process_handle import REQUEST_BIT, pack_response
from streamer.sampling.reports import REFUSALS, ReportOutcome, ReportSender, outcome_fields, refused
from streamer.sampling.selection import Selection
from streamer.sampling.selection_file import SelectionFile
from streamer.sampling.spool import Spool
from tests.helpers.candidates import candidate
from tests.unit.images import encode, scene

IMAGE = encode(scene())
T0 = 1_800_000_000.0


class CollectorRun:
    """Runs a collector in a folder, with a clock that the test sets."""

    def __init__(self, folder: Path, room_bytes: int = 1 << 30, **rules: int) -> None:
        self.spool = Spool(folder / "spool", room_bytes)
        self.spool.open()
        self.now = 0.0
        self.metrics = SamplingMetrics()
        self.selection = Selection(Policy(**rules), random.Random(1))
        self.collector = Collector(
            self.selection,
            self.spool,
            SimpleNamespace(wake=lambda: None),
            self.metrics,
            strip_metadata=False,
            threshold=0.7,
            service_version="1",
            clock=lambda: self.now,
        )

    def report(self, seq: int = 0, *, repeated: bool = False, **fields: Any) -> ReportOutcome:
        """Report the frame of that number, which was captured that many seconds after T0."""
        found = candidate(0.5, seq=seq, at=T0 + seq, reported=True, data=IMAGE, **fields)
        return self.collector.report(found, repeated=repeated)


def test_eight_of_eight_reports_are_kept_beside_a_flood_of_unsure_frames(tmp_path: Path) -> None:
    run = CollectorRun(tmp_path, stream_per_hour=1, per_hour=1, per_day=1, random_every_s=0)
    answers = []
    for seq in range(0, 400, 5):
        run.now = float(seq)
        run.collector.consider(candidate(0.5, at=T0 + seq, data=IMAGE))
        run.collector.tick()
        if seq % 50 == 0:
            # A camera that stands still: the image is the same each time.
            answers.append(run.report(seq))
    assert [answer.taken for answer in answers] == [True] * 8
    ids = {run.spool.read(name).sidecar["sample_id"] for name in run.spool.oldest()}
    assert {answer.sample for answer in answers} < ids
    assert len(ids) == 9, "and the one sample that the budgets of other samples allow"
    assert run.metrics.samples.labels("user")._value.get() == 8


def test_reports_have_a_rate_of_their_own_and_say_when_the_next_is_taken(tmp_path: Path) -> None:
    run = CollectorRun(tmp_path, reports_per_hour=40)
    assert all(run.report(seq).taken for seq in range(10)), "a quarter of them in one stream"
    refusal = run.report(10)
    assert (refusal.taken, refusal.reason, refusal.sample) == (False, "rate", "")
    assert refusal.retry_s == pytest.approx(360, abs=1)
    assert run.metrics.drops.labels("report_budget")._value.get() == 1
    run.now = refusal.retry_s
    assert run.report(11).taken
    assert run.report(12, stream="other").taken, "another stream has reports left"
    found = [run.report(seq, stream=name).taken for name in "abcd" for seq in range(20, 30)]
    assert sum(found) == 40 + 4 - 12, (
        "forty in all, four more after six minutes, and twelve were taken before"
    )
    assert CollectorRun(tmp_path / "off", reports_per_hour=0).report().reason == "off"


def test_a_restart_does_not_refill_the_budget_of_reports(tmp_path: Path) -> None:
    first = CollectorRun(tmp_path / "first", reports_per_hour=8, day_bytes=4 * len(IMAGE))
    assert [first.report(seq).reason for seq in range(3)] == ["", "", "rate"], "a quarter in one stream"
    assert first.report(3, stream="other").taken
    SelectionFile(tmp_path / "state", first.selection).write(first.now, T0)
    second = CollectorRun(tmp_path / "second", reports_per_hour=8, day_bytes=4 * len(IMAGE))
    # The clock of the new process begins elsewhere; 10 min have passed.
    second.now = 50_000.0
    SelectionFile(tmp_path / "state", second.selection).restore(second.now, T0 + 600)
    refusal = second.report(4)
    assert (refusal.taken, refusal.reason) == (False, "rate")
    assert refusal.retry_s == pytest.approx(1800 - 600, abs=1), "two per hour, so 30 min for one"
    assert second.report(5, stream="third").taken
    assert second.report(6, stream="third").retry_s > 3600, "the day has room for four"


def test_a_day_has_room_for_so_many_bytes_of_reports(tmp_path: Path) -> None:
    run = CollectorRun(tmp_path, day_bytes=2 * len(IMAGE))
    assert [run.report(seq).taken for seq in range(3)] == [True, True, False]
    assert run.report(3).retry_s == pytest.approx(86_400 - (T0 + 3) % 86_400)


def test_a_frame_that_is_kept_already_is_named(tmp_path: Path) -> None:
    run = CollectorRun(tmp_path, reports_per_hour=8)
    first = run.report(1)
    for _ in range(10):
        again = run.report(1)
        assert (again.taken, again.reason, again.sample) == (False, "duplicate", first.sample)
    assert run.report(2).taken, "a duplicate costs nothing of the budget"
    (name, _) = run.spool.oldest()
    run.spool.remove(name)
    assert run.report(1).reason == "duplicate", "also after its delivery"


def test_a_report_that_is_sent_again_after_a_crash_is_taken(tmp_path: Path) -> None:
    first = CollectorRun(tmp_path)
    kept = first.report(1)
    first.spool.close()
    second = CollectorRun(tmp_path)
    assert second.report(1, repeated=True) == kept


def test_a_refusal_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CollectorRun(tmp_path / "full", room_bytes=10).report().reason == "spool_full"
    run = CollectorRun(tmp_path / "damaged", reports_per_hour=4)

    def refuse(data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Any:
        raise ImageError(ImageErrorCode.DAMAGED, "x")

    decode, run.collector.decode = run.collector.decode, refuse
    assert run.report(0).reason == "damaged"
    run.collector.decode = decode

    def fail(*_args: Any) -> bool:
        raise SpoolBroken("no space")

    monkeypatch.setattr(run.spool, "accept", fail)
    assert run.report(1) == refused("disk_error", retry_s=DISK_PAUSE_S)
    monkeypatch.undo()
    run.now = 10.0
    assert run.report(2) == refused("disk_error", retry_s=DISK_PAUSE_S - 10)
    run.now = DISK_PAUSE_S + 1
    assert run.report(3).taken, "refusals cost nothing of the budget"


# -- the way to the sampling process -------------------------------------------------------------------

#: Answers a request; raises ConnectionError to end the connection without an answer.
Answer = Callable[[SampleCandidate, bool], ReportOutcome]


class SamplingProcess:
    """Stands in for the sampling process: answers reports as the test says."""

    def __init__(self, answer: Answer) -> None:
        self.listener = unix_socket.listen(socket.SOCK_STREAM)
        self._answer = answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(4), "little") & ~REQUEST_BIT
            request = msgpack.unpackb(await reader.readexactly(size))
            outcome = self._answer(unpack_candidate(request["candidate"]), request["repeated"])
            writer.write(pack_response({"result": outcome_fields(outcome)}))
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, sock=self.listener)
        try:
            yield
        finally:
            server.close()


async def send(sender: ReportSender, *found: SampleCandidate) -> list[ReportOutcome]:
    """Send reports at once, and return their outcomes in the order of the reports."""
    waiting = [asyncio.get_running_loop().create_future() for _ in found]
    for one, future in zip(found, waiting, strict=True):
        sender.start(one, future.set_result)
    return list(await asyncio.gather(*waiting))


async def test_the_decision_comes_back() -> None:
    outcome = refused("duplicate", sample="ab" * 32)
    process = SamplingProcess(lambda found, _: outcome if found.seq == 1 else ReportOutcome(True, "new"))
    lost: Counter[str] = Counter()
    async with process.running():
        sender = ReportSender(unix_socket.address_of(process.listener), lambda reason: lost.update([reason]))
        found = [candidate(seq=seq, reported=True, note="look") for seq in (1, 2)]
        assert await send(sender, *found) == [outcome, ReportOutcome(taken=True, sample="new")]
    assert not lost


async def test_a_process_that_ends_without_an_answer_is_replaced_by_one_that_knows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reports, "RETRY_S", 0.0)
    asked: list[bool] = []

    def answer(_found: SampleCandidate, repeated: bool) -> ReportOutcome:
        asked.append(repeated)
        if len(asked) == 1:
            raise ConnectionError
        return ReportOutcome(taken=True, sample="kept")

    process = SamplingProcess(answer)
    async with process.running():
        sender = ReportSender(unix_socket.address_of(process.listener), lambda _reason: None)
        assert await send(sender, candidate(reported=True)) == [ReportOutcome(taken=True, sample="kept")]
    assert asked == [False, True]


async def test_without_an_answer_nothing_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(reports, "RETRY_S", 0.01)
    lost: Counter[str] = Counter()
    with unix_socket.listen(socket.SOCK_STREAM) as listener:  # no process accepts the connection
        sender = ReportSender(unix_socket.address_of(listener), lambda reason: lost.update([reason]))
        assert await send(sender, candidate(reported=True)) == [refused("unavailable")]
    assert lost == {"no_observer": 1}


async def test_reports_that_wait_are_bounded_and_end_with_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "MAX_WAITING", 3)
    lost: Counter[str] = Counter()
    answers: list[ReportOutcome] = []
    with unix_socket.listen(socket.SOCK_STREAM) as listener:
        sender = ReportSender(unix_socket.address_of(listener), lambda reason: lost.update([reason]))
        for seq in range(5):
            sender.start(candidate(seq=seq, reported=True), answers.append)
        while len(answers) < 2:
            await asyncio.sleep(0)
        assert answers == [refused("busy")] * 2
        await sender.close()
    assert lost == {"busy": 2}
    assert len(answers) == 2


def test_every_refusal_has_a_text() -> None:
    assert all(refused(reason).message for reason in REFUSALS)
    assert ReportOutcome(taken=True).message == ""
