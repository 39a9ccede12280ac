"""Encodes and sends the frames of `pending_frames` as `flow` permits.

The stream runs it for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from streamer.client.connection import Connection, ConnectionLost
from streamer.client.encoder import ImageLimits, encode
from streamer.client.errors import BadInput
from streamer.client.flow import Flow, Sent
from streamer.client.options import Options
from streamer.client.pending_frames import PendingFrame, PendingFrames
from streamer.client.results import Outcome
from streamer.client.state import Notifier
from streamer.protocol.wire import Frame


class Sender:
    """The sending half of a stream. ``emit`` receives the outcomes of frames that could not be sent."""

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
                    if self._flow.has_resends:  # the last one may have been answered during the wait
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
        """Encode in a thread; return whether the frame is still current.

        If cancelled, the frame stays current.
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
        return self._pending_frames.current is pending  # it may have been dropped during encoding

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
