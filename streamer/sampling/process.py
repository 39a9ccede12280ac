"""Runs the sampling process, which receives candidates and requests of all workers. A replica has one.

It runs with the lowest priority. While it is down, only samples and drift rows are lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgpack

from inference.core.metric_setup import name_process
from inference.ipc import unix_socket
from inference.ipc.group_signals import on_sigterm, settle
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.config.child_environment import inherited_settings
from streamer.config.settings import Settings
from streamer.core.logs import set_up_logging
from streamer.decoding.single_decoder import DecoderUnavailable, SingleDecoder
from streamer.imaging.image_header import Limits
from streamer.sampling.candidate import (
    CONFIRMED,
    MAX_BYTES,
    MalformedCandidate,
    SampleCandidate,
    unpack_candidate,
)
from streamer.sampling.candidate_image import encoded
from streamer.sampling.collector import Collector
from streamer.sampling.delivery import Delivery
from streamer.sampling.drift_api import DriftApi
from streamer.sampling.drift_service import DriftService
from streamer.sampling.errors import SpoolBroken, SpoolInUse
from streamer.sampling.metrics import DriftMetrics, SamplingMetrics
from streamer.sampling.policy import Policy
from streamer.sampling.process_handle import REQUEST_BIT, SamplingStatus, pack_response
from streamer.sampling.reports import REPORT_METHOD, ReportOutcome, outcome_fields, refused
from streamer.sampling.row_writer import RowWriter, open_row_writer
from streamer.sampling.selection import Selection
from streamer.sampling.selection_file import MEMORY_EVERY_S, SelectionFile
from streamer.sampling.spool import Spool
from streamer.sampling.store import describe_store, open_store

log = logging.getLogger("streamer.observer")

NICE = 19
TICK_S = 1.0
#: Seconds between attempts to open a spool that another replica uses or whose disk fails.
SPOOL_RETRY_S = 5.0
LOG_EVERY_S = 600.0
#: Seconds in which the process reads the last candidates of the workers before it ends.
LAST_CANDIDATES_S = 1.0


class SampleCounter:
    """Counts accepted samples in the shared status, which outlives this process, and wakes the delivery."""

    def __init__(self, shared_status: SharedStatus, delivery: Delivery) -> None:
        self._shared_status = shared_status
        self._delivery = delivery

    def wake(self) -> None:
        """Count a new sample in the spool, and wake the delivery."""
        self._shared_status.post("samples", self._shared_status.read("samples") + 1)
        self._delivery.wake()


class CandidateReceiver:
    """Reads candidates and requests of the workers; drops candidates while there is no collector."""

    def __init__(self, drift: DriftService | None, decoder: SingleDecoder) -> None:
        #: None until the spool is open.
        self.collector: Collector | None = None
        #: None when drift is not monitored.
        self._drift = drift
        self._drift_api = DriftApi(drift) if drift is not None else None
        self._decoder = decoder
        self._next_log_at = 0.0
        #: One task for each connection.
        self.tasks: set[asyncio.Task[None]] = set()
        self._decoder_lock = asyncio.Lock()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one worker's connection in a task of its own."""
        peer: socket.socket = writer.get_extra_info("socket")
        if not unix_socket.is_own_user(peer):
            log.error("refusing candidates of another user")
            writer.close()
            return
        task = asyncio.ensure_future(self._read(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = int.from_bytes(await reader.readexactly(4), "little")
                size = head & ~REQUEST_BIT
                if size > MAX_BYTES:
                    raise MalformedCandidate(f"a message of {size} bytes; at most {MAX_BYTES}")  # noqa: TRY301 - closed in one place
                data = await reader.readexactly(size)
                if head & REQUEST_BIT:
                    await self._respond(data, writer)
                else:
                    await self._start_decoder()
                    self._consider(unpack_candidate(data))
                    # There is no need to wait with `drain`: single bytes always fit into the buffers.
                    writer.write(CONFIRMED)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the worker has ended, perhaps in the middle of a message
        except MalformedCandidate as error:
            log.error("closing a worker's connection: %s", error)  # noqa: TRY400 - no traceback needed
        finally:
            writer.close()

    async def _start_decoder(self) -> None:
        """Start the decoder if needed. If that fails, images are dropped until a later one starts it."""
        if self._decoder.ready:
            return
        async with self._decoder_lock:
            try:
                await asyncio.to_thread(self._decoder.prepare)
            except DecoderUnavailable as error:
                log.error("candidates cannot be decoded: %s", error)  # noqa: TRY400 - no traceback needed

    def _consider(self, candidate: SampleCandidate) -> None:
        if self._drift is not None:
            self._add_to_drift(self._drift, candidate)
        if self.collector is not None:
            self.collector.consider(candidate)

    def _add_to_drift(self, drift: DriftService, candidate: SampleCandidate) -> None:
        """Pass the candidate to the drift service, whose failures must not cost a sample."""
        try:
            drift.add(candidate)
        except Exception:
            if time.monotonic() >= self._next_log_at:
                self._next_log_at = time.monotonic() + LOG_EVERY_S
                log.exception("a drift row cannot be made")

    async def _report(self, candidate: SampleCandidate, *, repeated: bool) -> ReportOutcome:
        await self._start_decoder()
        if self.collector is None:
            return refused("no_spool")
        return self.collector.report(candidate, repeated=repeated)

    async def _respond(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        request = msgpack.unpackb(data)
        response: dict[str, Any] = {"error": {"status": 409, "code": "off", "detail": "DRIFT is off here."}}
        if request.get("method") == REPORT_METHOD:
            candidate = unpack_candidate(request["candidate"])
            response = {"result": outcome_fields(await self._report(candidate, repeated=request["repeated"]))}
        elif self._drift_api is not None:
            response = await self._drift_api.handle(request)
        writer.write(pack_response(response))
        await writer.drain()


def _limits(settings: Settings) -> Limits:
    """Return the limits of candidates: the widest that workers apply to images and streams.

    Drift features are computed from all pixels, so decoding takes more memory here than in a worker.
    """
    pixels = max(settings.image_max_pixels, settings.stream_max_pixels)
    return Limits(
        image_px=pixels,
        image_side_px=settings.image_max_side,
        reducible_px=settings.image_reducible_max_pixels,
        decode_bytes=settings.image_decode_max_bytes + 3 * pixels,
    )


async def serve(
    settings: Settings, listener: socket.socket, shared_status: SharedStatus, drift_document: SharedDocument
) -> None:
    """Receive candidates until SIGTERM, then deliver the waiting samples for a limited time."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_sigterm(shared_status, stop.set))
    beating = asyncio.create_task(_beat(shared_status), name="beat")
    metrics = SamplingMetrics()
    # The decoder process starts with the first candidate; without candidates there is none.
    decoder = SingleDecoder(_limits(settings), waiting=lambda: _post_beat(shared_status))
    drift = (
        DriftService(settings, DriftMetrics(), drift_document, shared_status, decoder.decode)
        if settings.drift
        else None
    )
    store, folder_store = open_store(settings)
    spool = Spool(
        settings.samples_dir / ".spool",
        settings.samples_max_bytes,
        lambda: folder_store.used_bytes if folder_store is not None else 0,
    )
    receiver = CandidateReceiver(drift, decoder)
    if drift is not None:
        await drift.open()
    # Open the spool before reading: candidates that wait in the sockets would be dropped without it.
    opened = await _try_open(spool, shared_status)
    server = await asyncio.start_unix_server(receiver.accept, sock=listener)
    ticking = asyncio.create_task(_tick(drift)) if drift is not None else None
    try:
        if not opened and not await _open(spool, shared_status, stop):
            return
        delivery = Delivery(spool, store, metrics)
        delivery.start()
        selection = Selection(Policy.of(settings), random.Random(), encoded)  # noqa: S311 - not a secret
        state_files = _state_files(settings.samples_dir / ".spool", selection)
        for file in state_files:
            file.restore(time.monotonic(), time.time())
        collector = Collector(
            selection,
            spool,
            SampleCounter(shared_status, delivery),
            metrics,
            strip_metadata=settings.samples_strip_metadata,
            threshold=settings.uncertainty_threshold,
            service_version=_own_version(),
        )
        collector.decode = decoder.decode
        collector.drift = drift
        receiver.collector = collector
        rows = open_row_writer(settings, drift, spool, delivery.wake, _own_version())
        shared_status.post("sampling", SamplingStatus.ON)
        log.info("samples go to %s; %d wait from before", describe_store(settings), len(spool))
        await _collect(collector, rows, state_files, receiver, stop)
        await asyncio.to_thread(delivery.stop, settings.samples_drain_s)
    finally:
        beating.cancel()
        server.close()
        spool.close()
        decoder.close()
        if drift is not None and ticking is not None:
            ticking.cancel()
            await drift.close()


async def _collect(
    collector: Collector,
    rows: RowWriter | None,
    state_files: Sequence[SelectionFile],
    receiver: CandidateReceiver,
    stop: asyncio.Event,
) -> None:
    """Keep samples until ``stop``, and then what the workers have sent last."""
    while not stop.is_set():
        collector.tick()
        if rows is not None:
            rows.tick()
        for file in state_files:
            file.tick(time.monotonic(), time.time())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), TICK_S)
    # The workers have ended already; their last candidates may still be in the sockets.
    if receiver.tasks:
        await asyncio.wait(receiver.tasks, timeout=LAST_CANDIDATES_S)
    collector.flush()
    if rows is not None:
        await rows.close()
    for file in state_files:
        file.write(time.monotonic(), time.time())


def _state_files(folder: Path, selection: Selection) -> tuple[SelectionFile, SelectionFile]:
    return (
        SelectionFile(folder / "selection", selection),
        SelectionFile(folder / "appearances", selection.memories, MEMORY_EVERY_S),
    )


def _post_beat(shared_status: SharedStatus) -> None:
    shared_status.post("sampling_beat", time.monotonic())


async def _beat(shared_status: SharedStatus) -> None:
    """Post a heartbeat for the supervisor while the event loop runs."""
    while True:
        _post_beat(shared_status)
        await asyncio.sleep(TICK_S)


async def _tick(drift: DriftService) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        try:
            drift.tick()
        except Exception:
            log.exception("drift cannot be checked")
            await asyncio.sleep(LOG_EVERY_S)


async def _open(spool: Spool, shared_status: SharedStatus, stop: asyncio.Event) -> bool:
    """Try to open the spool until that succeeds; return False if the process must end first."""
    next_log_at = time.monotonic() + LOG_EVERY_S
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SPOOL_RETRY_S)
        if await _try_open(spool, shared_status, quiet=time.monotonic() < next_log_at):
            return True
        if time.monotonic() >= next_log_at:
            next_log_at = time.monotonic() + LOG_EVERY_S
    return False


async def _try_open(spool: Spool, shared_status: SharedStatus, *, quiet: bool = False) -> bool:
    """Open the spool. On failure, post the status, log the reason unless ``quiet``, and return False."""
    try:
        await asyncio.to_thread(spool.open)
    except (SpoolInUse, SpoolBroken) as error:
        shared_status.post("sampling", SamplingStatus.NO_SPOOL)
        if not quiet:
            log.error("no samples are taken: %s (SAMPLES_DIR)", error)  # noqa: TRY400 - no traceback needed
        return False
    return True


def _own_version() -> str:
    try:
        return version("real-time-vision-api")
    except PackageNotFoundError:  # the package runs from a source tree, without an installation
        return "unknown"


def main() -> int:
    """Run as ``python -m streamer.sampling.process LISTENER_FD STATUS_FD DOCUMENT_FD``."""
    listener_fd, status_fd, document_fd = sys.argv[1:]
    settle()
    os.nice(NICE)
    settings = inherited_settings()
    set_up_logging(settings.log_level, settings.log_format)
    name_process("observer")
    listener = socket.socket(fileno=int(listener_fd))
    asyncio.run(serve(settings, listener, SharedStatus(int(status_fd)), SharedDocument(int(document_fd))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
