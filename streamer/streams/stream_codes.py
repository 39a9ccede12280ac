"""Lets idle decoders read the codes of one stream, after its results were sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from streamer.decoding.code_reader import CodeImage, CodeModel, CodeReader, Reading
from streamer.imaging.code_text import CodeText
from streamer.imaging.frame import StreamFrame
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.job import Prediction
from streamer.streams.code_texts import CodeTexts


class ReadingDispatcher(Protocol):
    """The dispatcher, as far as it is used here."""

    codes: CodeReader | None

    def charge(self, version: str, client: Client, cpu_s: float) -> None:
        """Charge a client for processor time."""


class StreamCodes:
    """Reads the codes of one stream, in at most one frame at a time.

    A frame whose turn does not come at once is not kept: the next result brings a newer one.
    """

    def __init__(self, reader: CodeReader, model: CodeModel, charge: Callable[[float], None]) -> None:
        self._reader = reader
        self._model = model
        self._charge = charge
        self._texts = CodeTexts()
        #: Value of `FlowControl.breaks` for which texts are known.
        self._breaks = 0
        #: Rows of the codes in the last result.
        self._rows: npt.NDArray[np.intp] = np.empty(0, np.intp)
        self._runs = False

    @classmethod
    def of(
        cls, dispatcher: ReadingDispatcher, version: str, model: CodeModel, client: Client | None
    ) -> StreamCodes | None:
        """Return the reading of a new stream; None if the service reads no codes."""
        if dispatcher.codes is None:
            return None
        return cls(dispatcher.codes, model, partial(dispatcher.charge, version, client or NOBODY))

    def texts(self, boxes: Boxes, ts_us: int, breaks: int) -> list[CodeText | None]:
        """Return what is known of the codes in a result, by row of ``boxes`` (N, 6).

        ``breaks`` is the number of discontinuities before the frame; after another one all texts are unknown.
        """
        if breaks != self._breaks:
            self._breaks = breaks
            self._texts.reset()
        rows = self._rows = self._reader.rows_of_codes(boxes, self._model)
        texts: list[CodeText | None] = [None] * len(boxes)
        known = self._texts.update(boxes[rows], ts_us, time.monotonic())
        for row, text in zip(rows.tolist(), known, strict=True):
            texts[row] = text
        return texts

    def read(self, frame: StreamFrame, prediction: Prediction) -> None:
        """Start to read the codes of the last result that are due, if a decoder is idle. Never waits."""
        now = time.monotonic()
        if self._runs:
            return
        due, ids = self._texts.due(now)
        if not due:
            return
        image = CodeImage(frame.payload, frame.rotation, prediction.width, prediction.height)
        boxes = prediction.boxes[self._rows[due]]
        until_s = now + self._reader.budget_s
        self._runs = self._reader.start(image, boxes, until_s, partial(self._answered, ids))
        if not self._runs:
            self._reader.count_busy()

    def _answered(self, ids: list[int], reading: Reading) -> None:
        self._runs = False
        self._charge(reading.cpu_s)
        self._texts.record(ids, reading.codes, reading.cpu_s, time.monotonic())
