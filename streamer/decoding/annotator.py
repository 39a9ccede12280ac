"""Lets a decoder draw boxes on an image; the decoder returns the JPEG in memory of its own for each image."""

from __future__ import annotations

import asyncio
import json
import mmap
import os
from collections.abc import Sequence

from inference.core.detections import Boxes
from inference.models.model import Placement
from streamer.decoding.decode_job import DecoderLost, Outcome, Work
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.messages import Answer, Task
from streamer.imaging.image_header import PixelLimits

#: Upper bound of the bytes per pixel of a JPEG; an image of noise at quality 90 takes 1.1.
_BYTES_PER_PX = 1.5
_LEAST_BYTES = 1 << 16


class NoInput:
    """Stands for the model's input in tasks without one; implements `letterbox.ModelInput`."""

    input_width = 1
    input_height = 1
    placement = Placement.STRETCH
    pad_value = 0


async def annotate(
    pool: DecoderPool,
    data: bytes | memoryview,
    limits: PixelLimits,
    boxes: Boxes,
    labels: tuple[str, ...],
    texts: Sequence[str | None],
    size: tuple[int, int],
) -> bytes:
    """Return the image with ``boxes`` (float32 (N, 6), pixels of the upright image) drawn, as JPEG.

    ``texts`` are those of codes, by row. ``size`` is the upright width and height in pixels. Raises
    ImageError, or DecoderLost if the decoder ended for a reason other than the image.
    """
    request = json.dumps({"rows": boxes.tolist(), "labels": labels, "texts": texts}).encode()
    room = max(_LEAST_BYTES + int(size[0] * size[1] * _BYTES_PER_PX), len(request) + 4)
    descriptor = os.memfd_create("annotated-image", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, room)
        with mmap.mmap(descriptor, room) as memory:
            memory[: len(request) + 4] = len(request).to_bytes(4, "little") + request
            answer = await _request(pool, data, limits, descriptor)
            length = int(answer.text)
            if not 0 < length <= room:
                raise DecoderLost("the decoder sent an annotated image of an impossible length")
            return memory[:length]
    finally:
        os.close(descriptor)


async def _request(
    pool: DecoderPool, data: bytes | memoryview, limits: PixelLimits, descriptor: int
) -> Answer:
    answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if not answered.done():
            answered.set_result(outcome)

    work = Work(data, Task.ANNOTATE, 0, 0, NoInput(), limits, done, descriptor)
    pool.submit(pool.any_ring, work)
    outcome = await answered
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
