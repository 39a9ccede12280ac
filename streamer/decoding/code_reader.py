"""Reads the texts of codes in detected boxes with idle decoders of a worker; nothing waits for it.

A reading starts only while another decoder stays idle, so that no image waits for a decoder that reads codes
(decision 0081). Everything here runs on the worker's event loop. Texts are never logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from inference.models.model import Placement
from streamer.decoding.decode_job import Outcome, Work
from streamer.decoding.messages import Answer, Task
from streamer.decoding.refused_digests import REMEMBER_SLOW_S, RefusedDigests
from streamer.imaging.code_text import (
    MAX_CODES,
    READING_BYTES,
    CodeText,
    MalformedReading,
    pack_request,
    unpack_reading,
)
from streamer.imaging.frame import DecodedFrame
from streamer.imaging.image_header import ImageError, PixelLimits

log = logging.getLogger("streamer.decoding")

#: A reading starts only while this many decoders are idle: one for it, and one for the next image.
IDLE_DECODERS = 2
#: Only one image larger than 1080p is read at a time, because decoding takes three bytes per pixel or more.
LARGE_PX = 1920 * 1088
#: The decoder stops before the end of the time, so that what it has read until then arrives in time.
_DECODER_SHARE = 0.9


class IdleDecoders(Protocol):
    """The decoders of a worker, as far as they are used here."""

    on_finished: Callable[[], None] | None

    @property
    def idle(self) -> int:
        """Number of decoders that have no work."""

    def submit_optional(self, work: Work) -> bool:
        """Let a decoder do work that nobody needs; return False if there is no room for its bytes."""


class CodeModel(Protocol):
    """A model, as far as it says which of its classes are codes; `ModelInfo` satisfies this protocol."""

    @property
    def labels(self) -> Sequence[str]:
        """Names of its classes."""

    @property
    def code_classes(self) -> Collection[str] | None:
        """Those labels that are codes; None if the model does not say."""


class ReadingMetrics(Protocol):
    """Counts readings."""

    def count(self, outcome: str) -> None:
        """Count a reading by its outcome: done, late, busy or failed."""

    def observe(self, seconds: float, read: int, unread: int) -> None:
        """Record what an answered reading took, and how many codes it read and did not read."""


class CodeImage(NamedTuple):
    """An image with codes, with the size of the upright image in pixels."""

    data: bytes | memoryview | DecodedFrame
    rotation: int
    width: int
    height: int


class Reading(NamedTuple):
    """The outcome of a reading."""

    #: What was read in each box; None where nothing was read.
    codes: list[CodeText | None]
    #: Processor time of the decoder in seconds.
    cpu_s: float
    #: How it is counted unless it comes too late: done or failed.
    outcome: str


class _Size:
    """States the size of grey pixels as that of the model's input; implements `letterbox.ModelInput`."""

    placement = Placement.STRETCH
    pad_value = 0

    def __init__(self, width: int, height: int) -> None:
        self.input_width = width
        self.input_height = height


class CodeReader:
    """Reads codes with the idle decoders of ``pool``.

    ``classes`` are the labels of what is a code, in lower case, for models that do not say.
    """

    def __init__(
        self,
        pool: IdleDecoders,
        limits: PixelLimits,
        classes: Collection[str],
        budget_s: float,
        *,
        metrics: ReadingMetrics,
        digests: RefusedDigests,
    ) -> None:
        #: Longest time for one image, in seconds.
        self.budget_s = budget_s
        self._pool = pool
        self._limits = limits
        self._classes = frozenset(classes)
        self._metrics = metrics
        #: Images in which reading has ended a decoder. They are not read again, but still detected on.
        self._digests = digests
        #: Readings of posted images that wait for an idle decoder, oldest first. Set: it may try again.
        self._waiting: list[asyncio.Event] = []
        self._large_runs = False
        pool.on_finished = self._wake

    def rows_of_codes(self, boxes: Boxes, model: CodeModel) -> npt.NDArray[np.intp]:
        """Return the indices of the ``boxes`` (N, 6 or more) whose classes are codes, in order."""
        if model.code_classes is None:
            codes = [number for number, label in enumerate(model.labels) if label.lower() in self._classes]
        else:
            codes = [number for number, label in enumerate(model.labels) if label in model.code_classes]
        return np.flatnonzero(np.isin(boxes[:, 5], codes))

    def start(self, image: CodeImage, boxes: Boxes, until_s: float, done: Callable[[Reading], None]) -> bool:
        """Start to read the codes in ``boxes`` (N, 4 or more); return False if no decoder is idle.

        ``done`` is called once, later, also if the reading fails: it then has no texts. No code is begun
        after ``until_s`` (monotonic seconds).
        """

        def finished(reading: Reading) -> None:
            self._metrics.count(reading.outcome)
            done(reading)

        return self._start(image, boxes, until_s, finished)

    def _start(self, image: CodeImage, boxes: Boxes, until_s: float, done: Callable[[Reading], None]) -> bool:
        """Do the same as :meth:`start`, and leave it to ``done`` to count the reading."""
        large = image.width * image.height > LARGE_PX
        if self._pool.idle < IDLE_DECODERS or (large and self._large_runs):
            return False
        rows: list[list[float]] = boxes[:MAX_CODES, :4].tolist()
        data, task, target = _encoded(image)
        if self._digests.contains(data):
            asyncio.get_running_loop().call_soon(done, _failed(len(rows)))
            return True
        try:
            descriptor = os.memfd_create("codes", os.MFD_CLOEXEC)
        except OSError as error:  # there are too many open files
            log.warning("codes are not read: %s", error)
            return False

        def finished(outcome: Outcome) -> None:
            self._large_runs &= not large
            try:
                reading = self._reading_of(outcome, descriptor, len(rows))
            finally:
                os.close(descriptor)
            if isinstance(outcome, ImageError):
                self._digests.add(data, REMEMBER_SLOW_S)
            done(reading)

        work = Work(data, task, image.rotation, 0, target, self._limits, finished, descriptor)
        request = pack_request(rows, until_s)
        os.truncate(descriptor, READING_BYTES)
        os.pwrite(descriptor, len(request).to_bytes(4, "little") + request, 0)
        if not self._pool.submit_optional(work):
            os.close(descriptor)
            return False
        self._large_runs |= large
        return True

    async def read(
        self, image: CodeImage, boxes: Boxes, end_s: float, charge: Callable[[float], None]
    ) -> list[CodeText | None]:
        """Return what the codes in ``boxes`` contain; None for those that were not read until ``end_s``.

        ``end_s`` is in monotonic seconds. ``charge`` is called with the processor time of the reading, in
        seconds, perhaps after this has returned.
        """
        answered: asyncio.Future[list[CodeText | None]] = asyncio.get_running_loop().create_future()
        until_s = end_s - (1 - _DECODER_SHARE) * self.budget_s
        is_late = started = False

        def done(reading: Reading) -> None:
            charge(reading.cpu_s)
            if not is_late:
                self._metrics.count(reading.outcome)
            if not answered.done():
                answered.set_result(reading.codes)

        try:
            async with asyncio.timeout(max(0.0, end_s - time.monotonic())):
                with self._turns() as turn:
                    while not (started := self._start(image, boxes, until_s, done)):
                        turn.clear()
                        await turn.wait()
                return await answered
        except TimeoutError:
            if answered.done() and not answered.cancelled():  # it came at the same moment
                return answered.result()
            is_late = True
            self._metrics.count("late" if started else "busy")
            return []

    async def read_detected(
        self,
        image: CodeImage,
        boxes: Boxes,
        model: CodeModel,
        end_s: float,
        charge: Callable[[float], None],
    ) -> list[CodeText | None] | None:
        """Read the codes among the ``boxes`` (N, 6 or more) that ``model`` has found, as :meth:`read` does.

        Return what each box contains, None for a box that is no code or was not read; None if no box is one.
        """
        rows = self.rows_of_codes(boxes, model)
        if not len(rows):
            return None
        texts = await self.read(image, boxes[rows], end_s, charge)
        codes: list[CodeText | None] = [None] * len(boxes)
        for row, text in zip(rows.tolist(), texts, strict=False):  # the last codes of many are not read
            codes[row] = text
        return codes

    def count_busy(self) -> None:
        """Count a reading of a stream's frame that did not start because no decoder was idle."""
        self._metrics.count("busy")

    @contextmanager
    def _turns(self) -> Iterator[asyncio.Event]:
        """Yield what is set whenever a decoder has finished its work and no older reading waits for one."""
        turn = asyncio.Event()
        self._waiting.append(turn)
        try:
            yield turn
        finally:
            self._waiting.remove(turn)
            if turn.is_set():  # this reading has started, or has ended before it tried again
                self._wake()

    def _wake(self) -> None:
        """Let the reading that has waited for longest try again."""
        for turn in self._waiting:
            if not turn.is_set():
                turn.set()
                return

    def _reading_of(self, outcome: Outcome, descriptor: int, count: int) -> Reading:
        """Return the reading that a decoder has answered, without texts if it is not valid."""
        if isinstance(outcome, Answer):
            try:
                codes = unpack_reading(_content(descriptor, outcome.text), count)
            except MalformedReading as error:
                log.error("a decoder sent %s", error)  # noqa: TRY400 - says it all
            else:
                read = sum(code is not None for code in codes)
                self._metrics.observe(outcome.decode_ms / 1e3, read, count - read)
                return Reading(codes, outcome.cpu_ms / 1e3, "done")
        return _failed(count)


def _failed(count: int) -> Reading:
    return Reading([None] * count, 0.0, "failed")


def _encoded(image: CodeImage) -> tuple[bytes | memoryview, Task, _Size]:
    """Return the bytes for the decoder, its task, and the size of grey pixels."""
    if isinstance(image.data, bytes | memoryview):
        return image.data, Task.READ_CODES, _Size(1, 1)
    return image.data.grey().data.cast("B"), Task.READ_GREY, _Size(image.width, image.height)


def _content(descriptor: int, length_text: str) -> bytes:
    """Return what the decoder has written. Raises MalformedReading."""
    if not (length_text.isdecimal() and len(length_text) < 9 and 0 < int(length_text) <= READING_BYTES):
        raise MalformedReading("a reading of an impossible length")
    return os.pread(descriptor, int(length_text), 0)
