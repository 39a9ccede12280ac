"""Sends the frames of a stream, and keeps those that wait for the server's window.

The stream runs `Sender.run` once for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from streamer.client.connection import Connection, ConnectionLost
from streamer.client.encoder import Encoded, ImageInput, ImageLimits, encode
from streamer.client.errors import BadInput
from streamer.client.flow import Flow, Sent
from streamer.client.frame_stream import Notifier
from streamer.client.options import Options
from streamer.client.results import Drop, FrameError, Ledger, Outcome
from streamer.protocol.wire import Frame

#: Longest queue in mode all. Frames can wait while another is encoded, so that neither source nor encoder has
#: to wait for the other.
QUEUE_MAX = 2


@dataclass(slots=True, eq=False)
class PendingFrame:
    """A frame that waits to be encoded or sent."""

    image: ImageInput
    captured_s: float
    tag: Any
    #: None until the frame is encoded.
    encoded: Encoded | None = None


class PendingFrames:
    """Holds the frames between ``offer``/``send`` and the sender.

    Every frame that is added is either sent or gets an outcome with ``seq`` 0.
    """

    def __init__(self, mode: str, ledger: Ledger) -> None:
        self._live = mode == "live"
        self._ledger = ledger
        self._queue: deque[PendingFrame] = deque()
        #: The frame that is being encoded or waits for the window.
        self.current: PendingFrame | None = None

    def __len__(self) -> int:
        return len(self._queue) + (self.current is not None)

    @property
    def full(self) -> bool:
        """Whether the queue of mode all is full."""
        return len(self._queue) >= QUEUE_MAX

    def refuse(self, reason: str) -> None:
        """Count a frame that is not accepted."""
        self._ledger.offered += 1
        self._ledger.skipped[reason] += 1

    def put(self, pending: PendingFrame) -> list[Outcome]:
        """Add a frame. In mode live it replaces the waiting frame; return the drop of that frame."""
        self._ledger.offered += 1
        self._ledger.waiting += 1
        replaced = self.drop_waiting("replaced") if self._live else []
        self._queue.append(pending)
        return replaced

    def next(self) -> PendingFrame | None:
        """Return the current frame; if there is none, the next frame becomes current."""
        if self.current is None and self._queue:
            self.current = self._queue.popleft()
        return self.current

    def sent(self) -> None:
        """Remove the current frame, which the caller sends now."""
        self.current = None
        self._ledger.waiting -= 1

    def fail(self, code: str, text: str) -> Outcome:
        """Remove the current frame, which cannot be sent, and return the error as its outcome."""
        pending = self._remove_current()
        self._ledger.skipped[code] += 1
        return FrameError(0, pending.captured_s, pending.tag, code, text)

    def drop_current(self, reason: str) -> list[Outcome]:
        """Drop the current frame, if there is one."""
        if self.current is None:
            return []
        pending = self._remove_current()
        self._ledger.skipped[reason] += 1
        return [Drop(0, pending.captured_s, pending.tag, reason)]

    def drop_waiting(self, reason: str) -> list[Outcome]:
        """Drop all frames but the current one."""
        outcomes: list[Outcome] = [
            Drop(0, pending.captured_s, pending.tag, reason) for pending in self._queue
        ]
        self._ledger.waiting -= len(self._queue)
        self._ledger.skipped[reason] += len(self._queue)
        if not self._ledger.skipped[reason]:
            del self._ledger.skipped[reason]
        self._queue.clear()
        return outcomes

    def _remove_current(self) -> PendingFrame:
        pending = self.current
        if pending is None:
            raise RuntimeError("no frame is current")
        self.current = None
        self._ledger.waiting -= 1
        return pending


class Sender:
    """Encodes and sends frames of a stream; ``emit`` receives the outcomes of those that it cannot send."""

    def __init__(
        self,
        flow: Flow,
        pending_frames: PendingFrames,
        notifier: Notifier,
        options: Options,
        emit: Callable[[list[Outcome]], None],
    ) -> None:
        self._flow = flow
        self._pending_frames = pending_frames
        self._notifier = notifier
        self._options = options
        self._emit = emit

    async def run(self, connection: Connection, limits: ImageLimits) -> None:
        """Send the frames that must be sent again, then the offered frames, as the window permits."""
        with contextlib.suppress(ConnectionLost):
            while True:
                if self._flow.has_resends:
                    await self._wait_for_window()
                    if self._flow.has_resends:  # the last of them may have been answered during the wait
                        await self._send_frame(connection, self._flow.resending(time.monotonic()))
                    continue
                if self._flow.mode == "live":
                    await self._wait_for_window()
                pending = self._pending_frames.next()
                if pending is None:
                    await self._notifier.wait()
                elif await self._encode(pending, limits):
                    await self._wait_for_window()
                    if self._pending_frames.current is pending:
                        await self._send_pending(connection, pending)

    async def _wait_for_window(self) -> None:
        while self._flow.refusal(now := time.monotonic()) is not None:
            if self._flow.mode == "live" and self._flow.window == 0:
                # The window may stay 0 for seconds; the current frame would be outdated by then.
                self._emit(self._pending_frames.drop_current("window"))
            await self._notifier.wait(self._flow.rate_wait_s(now))

    async def _encode(self, pending: PendingFrame, limits: ImageLimits) -> bool:
        """Encode the frame in a thread; return whether it is encoded and still the current frame.

        If this task is cancelled, the frame stays current.
        """
        if pending.encoded is not None:
            return True
        try:
            pending.encoded = await asyncio.to_thread(
                encode,
                pending.image,
                limits,
                quality=self._options.quality,
                max_side=self._options.max_side,
            )
        except BadInput as error:
            if self._pending_frames.current is pending:
                self._emit([self._pending_frames.fail("unreadable", str(error))])
            return False
        return self._pending_frames.current is pending  # the frame may have been dropped during encoding

    async def _send_pending(self, connection: Connection, pending: PendingFrame) -> None:
        encoded = pending.encoded
        if encoded is None:
            raise RuntimeError("the frame is not encoded")
        frame = Sent(
            0, encoded.payload, encoded.codec, pending.captured_s, pending.tag, encoded.scale, encoded.size
        )
        self._pending_frames.sent()
        self._flow.sending(frame, time.monotonic())
        self._notifier.notify()
        await self._send_frame(connection, frame)

    async def _send_frame(self, connection: Connection, frame: Sent) -> None:
        await connection.send_frame(Frame(frame.codec, frame.seq, frame.ts_us, frame.payload))
