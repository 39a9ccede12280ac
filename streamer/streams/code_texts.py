"""Remembers what the codes of a stream contain, and decides which of them are to be read next. Pure.

A reading takes longer than a frame, so its texts arrive with later results. A tracker of its own finds the
same code in them, whether or not the client has asked for tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from streamer.imaging.code_text import CodeText
from streamer.streams.tracker import Tracker

#: A code that could not be read is tried again after pauses that double from the first to the second value.
FIRST_PAUSE_S = 0.25
MAX_PAUSE_S = 2.0
#: A code that was read is read again after this time, because another one may have taken its place.
CONFIRM_S = 2.0
#: A text is forgotten when this many readings after it have found none.
MAX_UNCONFIRMED = 3
#: Readings of one stream use at most this share of the time of one core.
CPU_SHARE = 0.1
#: Most codes that are read in one frame.
MAX_AT_ONCE = 8
#: A code that no frame has shown for this time is forgotten.
FORGET_S = 5.0
#: Most characters of all texts in one result; the texts of further boxes are left out.
MAX_RESULT_CHARS = 8192


@dataclass(slots=True)
class _Code:
    """What is known of one code."""

    #: None until it was read.
    text: CodeText | None = None
    #: When it is to be read next, and when a frame has last shown it, in monotonic seconds.
    due_at: float = 0.0
    seen_at: float = 0.0
    #: Readings without a text since the last one with a text.
    misses: int = 0


class CodeTexts:
    """Knows the texts of one stream's codes. All times but ``ts_us`` are in monotonic seconds.

    Call :meth:`update` with the codes of each result, and :meth:`due` for what to read in its frame. Pass the
    outcome of a reading to :meth:`record`, with the ids that `due` returned.
    """

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._codes: dict[int, _Code] = {}
        #: Ids of the codes in the last result, by row; 0 for a row without one.
        self._ids: list[int] = []
        self._rest_until = 0.0

    def reset(self) -> None:
        """Forget everything, because the next frame shows something else."""
        self._tracker.reset()
        self._codes.clear()
        self._ids = []

    def update(self, boxes: Boxes, ts_us: int, now: float) -> list[CodeText | None]:
        """Take the codes of a result (N, 6), and return their texts by row; None where there is none.

        ``ts_us`` is the time of the frame by the sender's clock, in microseconds.
        """
        rows = boxes.copy()
        rows[:, 4] = 1.0  # codes with a low score may begin a track, too: a text shows that they are codes
        tracked: npt.NDArray[np.float32] = self._tracker.update(rows, ts_us)
        self._ids = [int(number) for number in tracked[:, 6]]
        for number in self._ids:
            if number:
                self._codes.setdefault(number, _Code()).seen_at = now
        self._codes = {number: code for number, code in self._codes.items() if now - code.seen_at <= FORGET_S}
        left = MAX_RESULT_CHARS
        texts: list[CodeText | None] = []
        for number in self._ids:
            text = self._codes[number].text if number else None
            if text is not None:
                left -= len(text.text)
            texts.append(text if left >= 0 else None)
        return texts

    def due(self, now: float) -> tuple[list[int], list[int]]:
        """Return the rows of the last result that are to be read now, and their ids; both may be empty.

        Codes without a text come first, and those that have waited for longest among them.
        """
        if now < self._rest_until:
            return [], []
        rows = [row for row, number in enumerate(self._ids) if number and self._codes[number].due_at <= now]
        rows.sort(key=lambda row: self._order(self._codes[self._ids[row]]))
        rows = rows[:MAX_AT_ONCE]
        return rows, [self._ids[row] for row in rows]

    def record(self, ids: Sequence[int], texts: Sequence[CodeText | None], cpu_s: float, now: float) -> None:
        """Take the outcome of a reading, which used ``cpu_s`` seconds of processor time."""
        self._rest_until = now + cpu_s * (1 / CPU_SHARE - 1)
        for number, text in zip(ids, texts, strict=True):
            code = self._codes.get(number)
            if code is None:
                continue
            if text is not None:
                code.text, code.misses = text, 0
                code.due_at = now + CONFIRM_S
                continue
            code.misses += 1
            if code.misses >= MAX_UNCONFIRMED:
                code.text = None
            code.due_at = now + min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** (code.misses - 1))

    @staticmethod
    def _order(code: _Code) -> tuple[bool, float]:
        return code.text is not None, code.due_at
