"""Sends the frames of a source through a stream, and passes them and their outcomes to the outputs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from streamer.cli.push_report import Journal, Tally, clock, progress_line, summary
from streamer.client.capture import Captured, Source, paced, thinned, without_backlog
from streamer.client.detections import Detections
from streamer.client.errors import ClientError, SaveFailed, StreamClosed
from streamer.client.frame_stream import FrameStream
from streamer.client.options import Options, Params
from streamer.client.results import Outcome, Result
from streamer.client.sources import SourceOptions
from streamer.core.signals import Signals
from streamer.core.terminal import Terminal

#: Longest wait for the source thread at the end. A thread that takes longer hangs in a driver and is
#: abandoned.
JOIN_S = 2.0
#: Interval at which the progress is shown.
_STATUS_S = 0.2
#: Longest wait for outcomes after a signal, because someone waits and the server may be unreachable.
STOP_TIMEOUT_S = 5.0


class FrameRecorder(Protocol):
    """Declares the methods of the recorder that the pusher uses."""

    def add(self, frame: Captured, *, wait_stop: threading.Event | None = None) -> bool:
        """Add a frame, in order."""

    def settle(self, frame: Captured, detections: Detections | None) -> None:
        """Give a frame its boxes."""


class OutcomeWriter(Protocol):
    """Declares the methods of the journal that the pusher uses."""

    def outcome(self, frame: Captured, outcome: Outcome) -> None:
        """Write one outcome."""


class FrameViewer(Protocol):
    """Declares the methods of the preview that the pusher uses."""

    def show(self, frame: Captured, detections: Detections | None) -> None:
        """Show a frame."""


@dataclass(frozen=True, slots=True)
class Sinks:
    """Holds the receivers of frames and outcomes; those that the user does not want are None."""

    recorder: FrameRecorder | None = None
    journal: OutcomeWriter | None = None
    preview: FrameViewer | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits the frame rate, and says when to stop before the source ends."""

    fps: float | None = None
    #: Seconds of source time.
    duration_s: float | None = None
    max_frames: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Holds what the user asks for with the options of `streamer push`."""

    source: str
    source_options: SourceOptions
    url: str
    transport: str
    #: None: "all" for a source of images over WebSocket, else "live".
    mode: Literal["live", "all"] | None
    params: Params
    token: str | None
    options: Options
    limits: Limits
    save: Path | None
    #: File of the JSON lines, or ``-``.
    json: str | None
    show: bool


@dataclass(slots=True)
class Pusher:
    """Sends one source through one stream. Signal handlers and other threads may call ``stop``."""

    source: Source
    stream: FrameStream
    sinks: Sinks = field(default_factory=Sinks)
    limits: Limits = field(default_factory=Limits)
    #: Whether a source that does not set the pace (a file) is read in real time.
    realtime: bool = True
    finish_timeout_s: float = 30.0
    tally: Tally = field(default_factory=Tally)
    stopped: threading.Event = field(default_factory=threading.Event)
    _failure: Exception | None = None

    def stop(self) -> None:
        """Capture no more frames, wait for outstanding outcomes, and end."""
        self.stopped.set()

    async def run(self) -> None:
        """Push until the source ends, a limit is reached, or ``stop`` is called.

        Raises SourceFailed, SaveFailed or the error that ended the stream, after all sent frames have
        outcomes.
        """
        counts = (self.source.total, self.limits.max_frames)
        self.tally.total = min((count for count in counts if count), default=None)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        thread = threading.Thread(target=self._pump, args=(loop, ended), name="source", daemon=True)
        reader = asyncio.create_task(self._read(), name="outcomes")
        thread.start()
        try:
            await self._wait(ended, reader)
            timeout_s = STOP_TIMEOUT_S if self.stopped.is_set() else self.finish_timeout_s
            self.stopped.set()
            # This also ends calls of `send` in the thread of the source.
            await self.stream.finish(timeout_s)
            await reader
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JOIN_S):
                    await ended.wait()
        finally:
            self.stopped.set()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    async def _wait(self, ended: asyncio.Event, reader: asyncio.Task[None]) -> None:
        """Return when the source has ended, `stop` was called, or no further outcome can come."""
        while not (ended.is_set() or self.stopped.is_set() or reader.done()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await ended.wait()

    # -- in the source's thread ----------------------------------------------------------------------

    def _pump(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
        frames = self._frames()
        try:
            for frame in frames:
                if self.stopped.is_set():
                    break
                if self.sinks.recorder is not None:
                    # A file can wait until the recorder has room. A live source cannot, because it would lose
                    # frames meanwhile.
                    self.sinks.recorder.add(frame, wait_stop=None if self.source.live else self.stopped)
                asyncio.run_coroutine_threadsafe(self._push_frame(frame), loop).result()
        except StreamClosed:
            pass
        except ClientError as error:
            self._failure = self._failure or error
        except RuntimeError:  # the event loop has ended; this thread was abandoned
            return
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

    def _frames(self) -> Iterator[Captured]:
        limits = self.limits
        frames = self.source.frames(self.stopped)
        if self.realtime and self.source.live:
            frames = without_backlog(frames)
        if limits.fps is not None:
            frames = thinned(frames, limits.fps)
        if self.realtime and not self.source.live:
            frames = paced(frames, self.stopped)
        for count, frame in enumerate(frames):
            if limits.duration_s is not None and frame.time_s >= limits.duration_s:
                return
            yield frame
            if limits.max_frames is not None and count + 1 >= limits.max_frames:
                return

    # -- in the loop ---------------------------------------------------------------------------------

    async def _push_frame(self, frame: Captured) -> None:
        tally = self.tally
        tally.captured += 1
        tally.time_s = frame.time_s + frame.duration_s
        tally.captures.mark(time.monotonic())
        accepted = False
        try:
            if frame.skip:
                self.stream.skip(frame.skip)
            elif self.stream.mode == "live":
                accepted = self.stream.offer(frame.image, tag=frame, captured_s=frame.time_s)
            else:
                await self.stream.send(frame.image, tag=frame, captured_s=frame.time_s)
                accepted = True
        except ClientError:
            self.stream.skip("closed")
            raise
        finally:
            if not accepted:
                self._settle(frame, None)

    async def _read(self) -> None:
        async for outcome in self.stream:
            frame: Captured = outcome.tag
            detections = outcome.detections if isinstance(outcome, Result) else None
            if isinstance(outcome, Result):
                self.tally.result(len(outcome.detections), outcome.round_trip_s, time.monotonic())
            if self.sinks.journal is not None:
                try:
                    self.sinks.journal.outcome(frame, outcome)
                except SaveFailed as error:
                    self._failure = self._failure or error
                    self.stopped.set()
            self._settle(frame, detections)

    def _settle(self, frame: Captured, detections: Detections | None) -> None:
        if self.sinks.recorder is not None:
            self.sinks.recorder.settle(frame, detections)
        if self.sinks.preview is not None:
            self.sinks.preview.show(frame, detections)


class PushRun:
    """Runs one push: opens its outputs, sends the frames, and closes the outputs."""

    def __init__(
        self,
        plan: Plan,
        terminal: Terminal,
        source: Source,
        stream: FrameStream,
        signals: Signals,
    ) -> None:
        self._plan = plan
        self._terminal = terminal
        self._stream = stream
        self._signals = signals
        #: Whether everything was sent and answered, and only the page is still served.
        self._over = False
        self._pusher = Pusher(
            source,
            stream,
            limits=plan.limits,
            # In mode all, files are read as fast as the server accepts frames.
            realtime=stream.mode == "live",
        )

    async def run(self) -> None:
        """Push, and write the outputs. Raises the errors of `Pusher.run` and SaveFailed."""
        plan, saved = self._plan, ""
        async with contextlib.AsyncExitStack() as stack:
            journal = Journal(plan.json) if plan.json else None
            if journal is not None:
                stack.callback(journal.close)
            preview = await self._start_preview(stack) if plan.show else None
            recorder: Any = None
            if plan.save is not None:
                from streamer.cli.recorder import Recorder  # noqa: PLC0415 - needs the extra `view`

                recorder = Recorder(plan.save)
            self._pusher.sinks = Sinks(recorder, journal, preview)
            try:
                await self._push()
            finally:
                if recorder is not None:
                    # In a thread: the encoder may have seconds of work left.
                    await asyncio.to_thread(recorder.close)
                    missed = f", {recorder.missed} missed" if recorder.missed else ""
                    saved = (
                        f"{recorder.path} ({recorder.duration_s:.1f} s, {recorder.written} frames{missed})"
                    )
                if journal is not None:
                    journal.summary(self._pusher.tally.captured, self._stream.ledger)
                self._terminal.line(summary(self._pusher.tally, self._stream.ledger, saved))
            if preview is not None and not self._signals.exit_code:
                await self._stay_open(preview.url)

    async def _start_preview(self, stack: contextlib.AsyncExitStack) -> Any:
        from streamer.cli.preview import Preview  # noqa: PLC0415 - needs the extra `view`

        preview = Preview(self._status)
        await preview.start()
        stack.push_async_callback(preview.close)
        self._terminal.line(f"preview: {preview.url}", always=True)
        preview.open_browser()
        return preview

    async def _stay_open(self, url: str) -> None:
        """Keep the page with the last frame until the user has seen it."""
        self._over = True
        await self._stream.close()
        self._terminal.line(f"the page stays at {url} until Ctrl-C", always=True)
        await self._signals.wait()
        # The push itself was complete, so the signal that closes the page must not set the exit code.
        self._signals.exit_code = 0

    def _status(self) -> str:
        if self._over:
            return f"the source has ended after {clock(self._pusher.tally.time_s)}; Ctrl-C closes this page"
        return progress_line(self._pusher.tally, self._stream.ledger, self._stream.state, time.monotonic())

    async def _push(self) -> None:
        self._signals.on_first(self._pusher.stop)
        ticker = asyncio.create_task(self._tick())
        try:
            await self._pusher.run()
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_STATUS_S)
            self._terminal.status(self._status())
