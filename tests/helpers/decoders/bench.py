"""A pool of decoder processes for tests, some of whose images make a decoder crash, hang or stop."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import cv2
import numpy as np
import psutil

from inference.ipc.ring import FrameRing
from inference.models.model import Placement
from streamer.decoding.decode_job import Outcome, Work
from streamer.decoding.decoder_group import DecoderProcess
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.messages import Task
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.image_header import Limits

TARGET = SimpleNamespace(input_width=64, input_height=64, placement=Placement.CENTRED, pad_value=114)
#: Time limit for anything that normally happens at once; it leaves room for a busy machine.
SOON_S = 120.0


def image(width: int, shade: int = 0, ending: str = ".jpg") -> bytes:
    """Return an encoded image of one colour."""
    encoded = cv2.imencode(ending, np.full((48, width, 3), shade, np.uint8))[1]
    return bytes(encoded.tobytes())


class Bench:
    """A pool with two decoders, and methods that send it images."""

    def __init__(self, digests: RefusedDigests) -> None:
        self.ends: list[str] = []
        self.ring = FrameRing(8, 64 * 64 * 3)
        self.pool = DecoderPool(
            2,
            input_bytes=1 << 20,
            digests=digests,
            count_end=self.ends.append,
            module="tests.helpers.decoders.faulty_fork_server",
        )

    async def start(self) -> None:
        self.pool.start()
        self.pool.attach(self.ring)
        await self.decode(image(32))

    def submit(self, data: bytes, slot: int = 0) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        work = Work(data, Task.LETTERBOX, 0, slot, TARGET, Limits(), future.set_result)
        self.pool.submit(self.ring, work)
        return future

    async def decode(self, data: bytes, slot: int = 0) -> Outcome:
        async with asyncio.timeout(SOON_S):
            return await self.submit(data, slot)

    async def holder(self, outcome: asyncio.Future[Outcome]) -> DecoderProcess | None:
        """Wait until a decoder holds an unanswered image; return it, or None if ``outcome`` came before.

        The entry of a decoder may name an image that it has answered until the decoder runs again.
        """
        group = self.pool._groups[-1]
        async with asyncio.timeout(SOON_S):
            while not outcome.done():
                for process in group.processes.values():
                    if group.line(process).job in self.pool._pending:
                        return process
                await asyncio.sleep(0.01)
        return None

    async def processes(self, count: int = 2) -> list[psutil.Process]:
        """Wait until at least ``count`` decoders accept jobs; return the processes of all decoders."""
        async with asyncio.timeout(SOON_S):
            while True:
                group = self.pool._groups[-1]
                with contextlib.suppress(psutil.NoSuchProcess):  # one has just died
                    found = [psutil.Process(member.pid) for member in group.processes.values() if member.pid]
                    if self.pool.alive >= count:
                        return found
                await asyncio.sleep(0.02)
