"""Sends streams to a service as cameras do: captures at a rate with jitter, obeying window and granted rate.

The flow control is that of the client library, as in ``streamer simulate streams``, so that both can be
compared.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
import msgpack

from streamer.client.flow import Flow, Sent
from streamer.client.results import FrameError, Result
from streamer.protocol.wire import Codec, Frame, pack_frame
from streamer.simulation.streams.camera import StreamRecord
from tests.helpers.load import http_session

#: Seconds after the last capture in which the outcomes of the last frames arrive.
DRAIN_S = 5.0


class CameraLoad:
    """Runs one camera; frames captured from ``begin`` to ``end`` (monotonic seconds) are recorded."""

    def __init__(
        self,
        url: str,
        images: Sequence[bytes],
        fps: float,
        jitter_s: float,
        measured: tuple[float, float],
        seed: int,
    ) -> None:
        self.record = StreamRecord(fps)
        self._url = url
        self._images = images
        self._jitter_s = jitter_s
        self._begin, self._end = measured
        self._rng = random.Random(seed)
        self._flow = Flow("live")

    async def run(self, session: aiohttp.ClientSession) -> StreamRecord:
        """Connect, send until the end, and wait for the last outcomes."""
        async with session.ws_connect(
            self._url, protocols=["detect.v1.msgpack"], max_msg_size=0, compress=0
        ) as socket:
            offer = {"id": 0, "codec": "jpeg", "mode": "live", "fps": self.record.fps}
            await socket.send_bytes(msgpack.packb({"type": "hello", "streams": [offer]}))
            self._flow.welcomed(msgpack.unpackb((await socket.receive()).data), time.monotonic())
            self.record.connected = True
            reader = asyncio.create_task(self._read(socket))
            try:
                await self._capture(socket)
                deadline = time.monotonic() + DRAIN_S
                while self._flow.in_flight and time.monotonic() < deadline:
                    await asyncio.sleep(0.05)
            finally:
                reader.cancel()
        return self.record

    async def _capture(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        record, flow, rng = self.record, self._flow, self._rng
        regular_at, number = time.monotonic() + rng.random() / record.fps, 0
        while True:
            captured = regular_at + rng.uniform(-self._jitter_s, self._jitter_s)
            regular_at += 1.0 / record.fps
            await asyncio.sleep(max(0.0, captured - time.monotonic()))
            if captured >= self._end:
                return
            recorded = captured >= self._begin
            record.captured += recorded
            reason = flow.refusal(time.monotonic())
            if reason is not None:
                record.skipped[reason] += recorded
                continue
            number += 1
            frame = Sent(0, self._images[number % len(self._images)], Codec.JPEG, captured, None)
            flow.sending(frame, time.monotonic())
            await socket.send_bytes(pack_frame(Frame(frame.codec, frame.seq, frame.ts_us, frame.payload)))

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            self._received(msgpack.unpackb(message.data), time.monotonic())

    def _received(self, message: dict[str, Any], now: float) -> None:
        record = self.record
        for outcome in self._flow.received(message, now):
            if not self._begin <= outcome.captured_s < self._end:
                continue
            if isinstance(outcome, Result):
                record.ages_s.append(now - outcome.captured_s)
            elif isinstance(outcome, FrameError):
                record.errors[outcome.code] += 1
            else:
                record.drops[getattr(outcome, "reason", "unknown")] += 1
        if now < self._end:
            record.granted_fps = self._flow.max_fps


async def run_cameras(
    url: str,
    images: Sequence[bytes],
    rates: Sequence[float],
    *,
    jitter_s: float,
    ramp_s: float,
    settle_s: float,
    seconds: float,
    seed: int = 1,
) -> list[StreamRecord]:
    """Run one camera for each of ``rates``, which connect during ``ramp_s``; return what they recorded."""
    begin = time.monotonic() + ramp_s + settle_s
    measured = begin, begin + seconds

    async def one(number: int, fps: float, session: aiohttp.ClientSession) -> StreamRecord:
        await asyncio.sleep(ramp_s * number / len(rates))
        return await CameraLoad(url, images, fps, jitter_s, measured, seed * 1000 + number).run(session)

    async with http_session() as session:
        return await asyncio.gather(*(one(number, fps, session) for number, fps in enumerate(rates)))
