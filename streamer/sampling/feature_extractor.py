"""Turns some of the candidates into rows for drift: one of each stream in an interval."""

from __future__ import annotations

import math
import random
from collections import OrderedDict

from streamer.drift.columns import Row
from streamer.drift.image_features import Image
from streamer.drift.row_throttle import Pace
from streamer.sampling.candidate import Candidate
from streamer.sampling.candidate_image import Decode, decode_here, image_of
from streamer.sampling.measure import measure, row_of

#: Thumbnails kept, one of each stream; older than so many intervals they say nothing of motion.
MAX_THUMBS, THUMB_INTERVALS = 256, 4


class RowMaker:
    """``make()`` decides and measures."""

    def __init__(self, interval_s: float, decode: Decode = decode_here) -> None:
        self._interval_s = interval_s
        self._decode = decode
        self._pace = Pace(interval_s, random.Random())  # noqa: S311 - jitter, no secret
        #: By stream: when its last row was, and the luma of its thumbnail.
        self._thumbs: OrderedDict[tuple[str, int], tuple[float, Image]] = OrderedDict()

    def make(self, candidate: Candidate) -> Row | None:
        """Return the candidate's row; None when it is not its stream's turn.

        Raises ImageError, MemoryError or OSError when the picture cannot be decoded.
        """
        origin, at = candidate.origin, candidate.captured_at
        # A report is a person's choice of frame, and boxes below the threshold are missing in it.
        if candidate.reported or not self._pace.wants(origin.stream, origin.session, at):
            return None
        stream = origin.stream, origin.session
        numbers, thumb = measure(
            candidate, image_of(candidate, decode=self._decode), self._before(stream, at)
        )
        if origin.transport != "http":  # posted pictures have nothing to do with each other
            self._thumbs[stream] = at, thumb
            self._thumbs.move_to_end(stream)
            if len(self._thumbs) > MAX_THUMBS:
                self._thumbs.popitem(last=False)
        return row_of(candidate, numbers)

    def _before(self, stream: tuple[str, int], now: float) -> Image | None:
        at, thumb = self._thumbs.get(stream, (-math.inf, None))
        return thumb if 0 <= now - at <= THUMB_INTERVALS * self._interval_s else None
