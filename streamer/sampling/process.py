"""The observer process: takes candidates and questions of all workers. The supervisor starts it.

Nice, one per replica; its absence costs samples and nothing else.
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
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgpack

from inference.ipc import unix_socket as address
from inference.ipc.child_process import settle, when_told_to_end
from inference.ipc.shared_status import Board
from inference.telemetry.metrics import name_process
from streamer.config.child_environment import inherited_settings
from streamer.config.settings import Settings
from streamer.core.logs import set_up_logging
from streamer.decoding.single_decoder import DecoderUnavailable, SingleDecoder
from streamer.drift.shared_document import SharedDocument
from streamer.imaging.header import AnySize
from streamer.sampling.candidate import MAX_BYTES, Candidate, MalformedCandidate, unpack_candidate
from streamer.sampling.candidate_image import encoded
from streamer.sampling.collector import Observer
from streamer.sampling.delivery import Delivery
from streamer.sampling.drift_api import DriftApi
from streamer.sampling.drift_service import DriftService
from streamer.sampling.errors import SpoolBroken, SpoolInUse
from streamer.sampling.metrics import DriftMetrics, SamplingMetrics
from streamer.sampling.policy import Policy
from streamer.sampling.rpc import QUESTION_BIT, pack_answer
from streamer.sampling.sampling_status import Standing
from streamer.sampling.selection import Selection
from streamer.sampling.spool import Spool
from streamer.sampling.stores import describe_store, open_store

log = logging.getLogger("streamer.observer")

NICE = 19
TICK_S = 1.0
#: Between attempts to open a spool that another replica uses, or whose disk fails.
SPOOL_RETRY_S = 5.0
LOG_EVERY_S = 600.0
#: At the end: time to read what workers have sent, and time to deliver what waits.
LAST_CANDIDATES_S = 1.0


class Accepted:
    """Is told of every accepted sample: counts it on the board, which outlives this process, and delivers."""

    def __init__(self, board: Board, delivery: Delivery) -> None:
        self._board = board
        self._delivery = delivery

    def wake(self) -> None:
        """There is a new sample in the spool."""
        self._board.post("samples", self._board.read("samples") + 1)
        self._delivery.wake()


class Intake:
    """Reads candidates and questions from the workers' connections; without an observer they are let go."""

    def __init__(self, watch: DriftService | None, decoder: SingleDecoder) -> None:
        #: None while there is no spool.
        self.observer: Observer | None = None
        #: None where nobody watches for drift.
        self._watch = watch
        self._decoder = decoder
        self._desk = DriftApi(watch) if watch is not None else None
        self._next_log_at = 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self._starting = asyncio.Lock()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one worker's connection in a task of its own."""
        peer: socket.socket = writer.get_extra_info("socket")
        if not address.is_own_user(peer):
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
                size = head & ~QUESTION_BIT
                if size > MAX_BYTES:
                    raise MalformedCandidate(f"a message of {size} bytes; at most {MAX_BYTES}")  # noqa: TRY301 - one place closes
                data = await reader.readexactly(size)
                if head & QUESTION_BIT:
                    await self._answer(data, writer)
                else:
                    if not self._decoder.ready:
                        await self._start_decoder()
                    self._consider(unpack_candidate(data))
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the worker has ended, perhaps half-way through a candidate
        except MalformedCandidate as error:
            log.error("closing a worker's connection: %s", error)  # noqa: TRY400 - says it all
        finally:
            writer.close()

    async def _start_decoder(self) -> None:
        """Without it images are passed over until the next candidate tries again."""
        async with self._starting:
            try:
                await asyncio.to_thread(self._decoder.prepare)
            except DecoderUnavailable as error:
                log.error("candidates cannot be looked at: %s", error)  # noqa: TRY400 - says it all

    def _consider(self, candidate: Candidate) -> None:
        if self._watch is not None:
            self._watch_candidate(self._watch, candidate)
        if self.observer is not None:
            self.observer.consider(candidate)

    def _watch_candidate(self, watch: DriftService, candidate: Candidate) -> None:
        """Drift must not cost a sample, whatever happens in it."""
        try:
            watch.add(candidate)
        except Exception:
            if time.monotonic() >= self._next_log_at:
                self._next_log_at = time.monotonic() + LOG_EVERY_S
                log.exception("a row of drift cannot be made")

    async def _answer(self, question: bytes, writer: asyncio.StreamWriter) -> None:
        answer: dict[str, Any] = {"error": {"status": 409, "code": "off", "detail": "DRIFT is off here."}}
        if self._desk is not None:
            answer = await self._desk.handle(msgpack.unpackb(question))
        writer.write(pack_answer(answer))
        await writer.drain()


async def serve(settings: Settings, listener: socket.socket, board: Board, page: SharedDocument) -> None:
    """Take candidates until the supervisor ends it; then keep what is held and deliver for a while."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, when_told_to_end(board, stop.set))
    beating = asyncio.create_task(_beat(board), name="beat")
    metrics = SamplingMetrics()
    # Starts with the first image, and not at all where there is none.
    decoder = SingleDecoder(AnySize(), waiting=lambda: _post_beat(board))
    watch = DriftService(settings, DriftMetrics(), page, board, decoder.decode) if settings.drift else None
    store, beside = open_store(settings)
    spool = Spool(
        settings.samples_dir / ".spool",
        settings.samples_max_bytes,
        lambda: beside.used_bytes if beside is not None else 0,
    )
    intake = Intake(watch, decoder)
    if watch is not None:
        await watch.open()
    # Before anything is read: what waits in the sockets would be let go.
    opened = await _try_open(spool, board)
    server = await asyncio.start_unix_server(intake.accept, sock=listener)
    ticking = asyncio.create_task(_tick(watch)) if watch is not None else None
    try:
        if not opened and not await _open(spool, board, stop):
            return
        delivery = Delivery(spool, store, metrics)
        delivery.start()
        observer = Observer(
            Selection(Policy.of(settings), random.Random(), encoded),  # noqa: S311 - draws samples, no secret
            spool,
            Accepted(board, delivery),
            metrics,
            strip_metadata=settings.samples_strip_metadata,
            threshold=settings.uncertainty_threshold,
            service_version=_own_version(),
        )
        observer.decode = decoder.decode
        observer.drift = watch
        intake.observer = observer
        board.post("sampling", Standing.ON)
        log.info("samples go to %s; %d wait from before", describe_store(settings), len(spool))
        while not stop.is_set():
            observer.tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_S)
        # The workers have ended before us; what they sent last may still stand in the sockets.
        if intake.tasks:
            await asyncio.wait(intake.tasks, timeout=LAST_CANDIDATES_S)
        observer.flush()
        await asyncio.to_thread(delivery.stop, settings.samples_drain_s)
    finally:
        beating.cancel()
        server.close()
        spool.close()
        decoder.close()
        if watch is not None and ticking is not None:
            ticking.cancel()
            await watch.close()


def _post_beat(board: Board) -> None:
    board.post("observer_beat", time.monotonic())


async def _beat(board: Board) -> None:
    """Show the supervisor that the loop turns."""
    while True:
        _post_beat(board)
        await asyncio.sleep(TICK_S)


async def _tick(watch: DriftService) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        try:
            watch.tick()
        except Exception:
            log.exception("drift cannot be judged")
            await asyncio.sleep(LOG_EVERY_S)


async def _open(spool: Spool, board: Board, stop: asyncio.Event) -> bool:
    """Open the spool, however long that takes; False when the process is to end before."""
    next_log_at = time.monotonic() + LOG_EVERY_S
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SPOOL_RETRY_S)
        if await _try_open(spool, board, quiet=time.monotonic() < next_log_at):
            return True
        if time.monotonic() >= next_log_at:
            next_log_at = time.monotonic() + LOG_EVERY_S
    return False


async def _try_open(spool: Spool, board: Board, *, quiet: bool = False) -> bool:
    """Open the spool; says on the board, and unless ``quiet`` in the log, why it cannot be."""
    try:
        await asyncio.to_thread(spool.open)
    except (SpoolInUse, SpoolBroken) as error:
        board.post("sampling", Standing.NO_SPOOL)
        if not quiet:
            log.error("no samples are taken: %s (SAMPLES_DIR)", error)  # noqa: TRY400 - says it all
        return False
    return True


def _own_version() -> str:
    try:
        return version("real-time-vision-api")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def main() -> int:
    """Run as ``python -m streamer.sampling.process LISTENER_FD BOARD_FD PAGE_FD``."""
    listener_fd, board_fd, page_fd = sys.argv[1:]
    settle()
    os.nice(NICE)
    settings = inherited_settings()
    set_up_logging(settings.log_level, settings.log_format)
    name_process("observer")
    listener = socket.socket(fileno=int(listener_fd))
    asyncio.run(serve(settings, listener, Board(int(board_fd)), SharedDocument(int(page_fd))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
