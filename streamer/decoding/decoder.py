"""Runs the image decoder process, which is always sandboxed.

It receives jobs over a socket, decodes into shared memory and answers. Several decoders read from one socket,
so any free one takes the next job. When this module is run, it is the fork server that starts the decoders.
"""

from __future__ import annotations

import array
import json
import logging
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from inference.ipc.ring import FrameRing
from inference.preprocess.letterbox import Letterbox
from streamer.core.free_memory import return_free_memory
from streamer.decoding.decoder_status import DecoderStatus
from streamer.decoding.fork_server import serve
from streamer.decoding.messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Job,
    MalformedMessage,
    Task,
    Verdict,
    pack_answer,
    unpack_job,
)
from streamer.decoding.sandbox import CpuLimit, Sandbox, enter_sandbox
from streamer.imaging.decode import Decoded, decode
from streamer.imaging.draw import annotate
from streamer.imaging.heif_pixels import warm_up as warm_up_heif
from streamer.imaging.image_header import ImageError, ImageErrorCode, ImageHeader, read_header
from streamer.imaging.sampled_pixels import sampled_memory, sampled_rows

log = logging.getLogger("streamer.decoding")

#: After an image of at least this many pixels, the decoder returns freed memory to the system.
_TRIM_PX = 2_000_000
#: Seconds of processor time after which a decoder ends between two jobs, to be replaced by a fresh one.
RETIRE_CPU_S = 3600.0
_CODES = tuple(ImageErrorCode)
_MAX_LETTERBOXES = 256

#: Reads the codes in boxes of an image until a time in monotonic seconds; `code_symbols.read_symbols`.
ReadSymbols = Callable[
    [npt.NDArray[np.uint8], Sequence[Sequence[float]], float], list[tuple[str, str] | None]
]


@dataclass(frozen=True, slots=True)
class DecoderResources:
    """Holds what the fork server gives to a decoder, which owns the descriptors."""

    #: Identifies this decoder to the pool.
    key: int
    #: Index of its entry in the status page.
    index: int
    channel: socket.socket
    arena: mmap.mmap
    #: Receives letterboxed frames; None in a pool that only returns pixels.
    ring: FrameRing | None
    page: DecoderStatus
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class _Limits:
    """Implements `image_header.PixelLimits`."""

    image_px: int
    image_side_px: int
    reducible_px: int
    decode_bytes: int


class Decoder:
    """Serves jobs until the socket is closed."""

    def __init__(self, resources: DecoderResources, read_symbols: ReadSymbols | None = None) -> None:
        self._resources = resources
        #: None in decoders that read no codes.
        self._read_symbols = read_symbols
        self._memory = memoryview(resources.arena)
        self._cpu_limit = CpuLimit()
        self._limits: dict[tuple[int, ...], _Limits] = {}
        self._letterboxes: dict[tuple[object, ...], Letterbox] = {}
        #: Whether the last image may have used much memory.
        self._large = False

    def run(self) -> None:
        """Enter the sandbox, report it to the worker, and serve jobs.

        Returns when the worker has gone, or when the decoder has used so much processor time that a fresh one
        should replace it.
        """
        resources = self._resources
        sandbox = enter_sandbox(resources.memory_bytes)
        resources.channel.send(pack_answer(ready_answer(resources.key, sandbox)))
        descriptors = array.array("i")
        room = socket.CMSG_SPACE(descriptors.itemsize)
        while True:
            try:
                data, ancillary, _, _ = resources.channel.recvmsg(MAX_MESSAGE_BYTES, room)
            except ConnectionError:
                return
            if not data:
                return
            descriptor = -1
            for _, _, payload in ancillary:
                descriptor = int.from_bytes(payload[:4], "little")
            # Use the clock of the thread: with a limit on processor time, the clock of the process advances
            # only with the ticks of the kernel, so most jobs would seem to cost nothing.
            cpu_s = time.thread_time()
            try:
                answer = self._serve(unpack_job(data), descriptor, cpu_s)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
            if self._large:
                # Nothing refers to the image any more. With the answer, the worker lets another decoder begin
                # the next large image, and the memory of both together would exceed the limit for one.
                return_free_memory()
            now_s = time.thread_time()
            answer.cpu_ms = (now_s - cpu_s) * 1e3
            resources.channel.send(pack_answer(answer))
            resources.page.write(resources.index, 0, 0.0, 0.0)
            if now_s > RETIRE_CPU_S:
                return

    def _serve(self, job: Job, descriptor: int, cpu_s: float) -> Answer:
        begun = time.monotonic()
        self._cpu_limit.renew(cpu_s)
        self._resources.page.write(self._resources.index, job.number, begun, cpu_s)
        self._large = True
        try:
            data = self._memory[job.offset : job.offset + job.length]
            if job.task is Task.READ_GREY:
                self._large = len(data) >= _TRIM_PX
                text = self._read_grey(job, data, descriptor)
                took_ms = (time.monotonic() - begun) * 1e3
                return Answer(
                    Verdict.DONE, job.number, job.input_width, job.input_height, decode_ms=took_ms, text=text
                )
            header = read_header(data, self._limits_of(job))
            self._large = header.width * header.height >= _TRIM_PX
            target = (job.input_width, job.input_height)
            decoded = decode(
                data,
                header,
                rotation=job.rotation,
                target=target,
                reduce=job.task is Task.PIXELS,
                resized=self._resized(job, header) if job.task is Task.LETTERBOX else None,
                most_bytes=job.decode_bytes,
            )
            width, height = _size_of(job, header)
            if job.task is Task.PIXELS:
                height, width = decoded.pixels.shape[:2]
            text = self._write(job, header, decoded, descriptor)
            took_ms = (time.monotonic() - begun) * 1e3
            return Answer(
                Verdict.DONE,
                job.number,
                width,
                height,
                decoded.damaged,
                took_ms,
                text=text,
                reduced=decoded.reduced,
            )
        except ImageError as error:
            return Answer(Verdict.REFUSED, job.number, code=_CODES.index(error.code), text=error.detail)
        except MemoryError:
            return Answer(Verdict.NO_MEMORY, job.number)
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker must get an answer
            return Answer(Verdict.FAULT, job.number, text=f"{type(error).__name__}: {error}")

    def _write(self, job: Job, header: ImageHeader, decoded: Decoded, descriptor: int) -> str:
        """Write the image to the memory that the task requires; return the text of the answer."""
        image = decoded.pixels
        if job.task is Task.LETTERBOX:
            ring = self._resources.ring
            if ring is None:
                raise MalformedMessage("there is no frame ring")
            slot = ring.pixels(job.slot, job.input_width, job.input_height)
            self._letterbox(job, *_size_of(job, header)).write(image, slot)
            return ""
        with mmap.mmap(descriptor, 0) as memory:
            if job.task is Task.PIXELS:
                if image.nbytes > len(memory):
                    raise MemoryError(f"{image.nbytes} bytes do not fit")
                # Copy the array into the memory directly: converting it to bytes first would make a second
                # copy of a large image.
                np.frombuffer(memory, np.uint8, image.nbytes).reshape(image.shape)[...] = image
                return str(image.nbytes)
            request = _get_request(memory)
            if job.task is Task.READ_CODES:
                boxes = [[side / decoded.reduced for side in box] for box in request["boxes"]]
                out = self._read(image, boxes, request["until"])
            else:
                rows = np.asarray(request["rows"], np.float32).reshape(-1, 6)
                rows[:, :4] /= decoded.reduced
                out = annotate(image, rows, request["labels"], request["texts"])
            return _put(memory, out)

    def _read_grey(self, job: Job, data: memoryview, descriptor: int) -> str:
        """Read codes in the grey pixels ``data``; return the text of the answer."""
        image = np.frombuffer(data, np.uint8).reshape(job.input_height, job.input_width)
        with mmap.mmap(descriptor, 0) as memory:
            request = _get_request(memory)
            return _put(memory, self._read(image, request["boxes"], request["until"]))

    def _read(self, image: npt.NDArray[np.uint8], boxes: list[list[float]], until_s: float) -> bytes:
        if self._read_symbols is None:
            raise MalformedMessage("this decoder reads no codes")
        found = self._read_symbols(image, boxes, until_s)
        return json.dumps(found, ensure_ascii=False).encode(errors="replace")

    def _resized(self, job: Job, header: ImageHeader) -> tuple[int, int]:
        """Return width and height to which the upright image will be resized."""
        letterbox = self._letterbox(job, *_size_of(job, header))
        return letterbox.resized_width, letterbox.resized_height

    def _letterbox(self, job: Job, width: int, height: int) -> Letterbox:
        key = (width, height, job.input_width, job.input_height, job.placement, job.pad_value)
        found = self._letterboxes.get(key)
        if found is None:
            if len(self._letterboxes) >= _MAX_LETTERBOXES:
                self._letterboxes.clear()
            found = self._letterboxes[key] = Letterbox.fit(width, height, job)
        return found

    def _limits_of(self, job: Job) -> _Limits:
        """Return the same object for equal limits, because a cache of JPEG headers compares its identity."""
        key = (job.image_px, job.image_side_px, job.reducible_px, job.decode_bytes)
        found = self._limits.get(key)
        if found is None:
            found = self._limits[key] = _Limits(*key)
        return found


def _size_of(job: Job, header: ImageHeader) -> tuple[int, int]:
    """Return width and height of the image at full size, after EXIF orientation and the job's rotation."""
    width, height = header.upright_size
    return (height, width) if job.rotation % 2 else (width, height)


def _get_request(memory: mmap.mmap) -> dict[str, Any]:
    """Return the request of a task that has one: its length in four bytes, then JSON."""
    request: dict[str, Any] = json.loads(bytes(memory[4 : 4 + int.from_bytes(memory[:4], "little")]))
    return request


def _put(memory: mmap.mmap, out: bytes) -> str:
    """Write the result of a task to its memory; return the text of the answer."""
    if len(out) > len(memory):
        raise MemoryError(f"{len(out)} bytes do not fit")
    memory[: len(out)] = out
    return str(len(out))


def ready_answer(key: int, sandbox: Sandbox) -> Answer:
    """Return the message with which a decoder reports that it has entered its sandbox."""
    text = json.dumps({"protections": sandbox.protections, "missing": sandbox.missing})
    return Answer(Verdict.READY, key, text=text)


def warm_up() -> None:
    """Use each image format once, so that libraries read files and start threads before the sandbox.

    The fork server calls this, so the decoders share the memory that the libraries fill, such as 6 MB for the
    glyphs of labels.
    """
    canvas = np.zeros((16, 16, 3), np.uint8)
    limits = _Limits(1 << 20, 1 << 10, 1 << 20, 1 << 30)
    for ending in (".jpg", ".png", ".webp"):
        _, encoded = cv2.imencode(ending, canvas)
        data = encoded.tobytes()
        decode(data, read_header(data, limits))
    warm_up_heif()
    sampled_memory(4096, 4096, sampled_rows(4096, 16))
    annotate(canvas, np.asarray([[1, 1, 9, 9, 0.5, 0]], np.float32), ["a"])
    cv2.resize(canvas, (9, 9), interpolation=cv2.INTER_LINEAR)


def run(request: Mapping[str, Any], descriptors: list[int], read_symbols: ReadSymbols | None = None) -> None:
    """Run a decoder in a fresh fork; it takes over the descriptors that `decoder_group` lists."""
    channel, arena, page, *ring = descriptors
    frames = FrameRing.attach(ring[0], request["slots"], request["slot_bytes"]) if ring else None
    resources = DecoderResources(
        key=request["key"],
        index=request["index"],
        channel=socket.socket(fileno=channel),
        arena=mmap.mmap(arena, 0, prot=mmap.PROT_READ),
        ring=frames,
        page=DecoderStatus(page),
        memory_bytes=request["memory_bytes"],
    )
    Decoder(resources, read_symbols).run()


if __name__ == "__main__":
    warm_up()
    sys.exit(serve(run))
