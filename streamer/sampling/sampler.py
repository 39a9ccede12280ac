"""A tap on one stream: picks by the clock which finished detections become candidates. Only ``offer`` acts.

Lives on the worker's event loop. Per finished detection it compares a clock and keeps one reference; the
frame it keeps is the stream's last one, so at most one encoded picture per open stream.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from streamer.imaging.frame import Picture
from streamer.sampling.candidate import Candidate, Origin, Rival

#: One candidate of a stream in this time, jittered so that streams do not march in step. The observer decides
#: among them what is worth keeping; more would only find more of the same scene.
INTERVAL_S = 1.0
JITTER = 0.2
#: Frames further apart than this say nothing of flicker.
NEIGHBOUR_S = 0.5
#: Boxes are looked for down to half the threshold, but no lower than this: below is noise.
LEAST_LOW_THRESHOLD = 0.1


@dataclass(frozen=True, slots=True)
class Shot:
    """One finished detection. Sizes in pixels of the upright picture."""

    data: bytes | memoryview | Picture
    seq: int
    rotation: int
    #: Arrival of the frame, monotonic and unix seconds.
    at: float
    captured_at: float
    width: int
    height: int
    params: DetectionParams
    #: Boxes over the caller's threshold.
    boxes: Boxes


#: Begins to run a shot through another model; calls back later, with None when nothing came of it. False when
#: it does not even begin.
Compare = Callable[[Shot, Callable[[Rival | None], None]], bool]


@dataclass(slots=True)
class _Waiting:
    """A candidate that waits for the frame after it, for another model, or for both."""

    candidate: Candidate
    #: Arrival of its frame, monotonic seconds.
    at: float
    for_frame: bool
    for_rival: bool


def low_threshold(threshold: float) -> float:
    """Return how far down boxes are looked for in a candidate; never above the caller's threshold."""
    return min(threshold, max(LEAST_LOW_THRESHOLD, threshold / 2))


def lowered(params: DetectionParams) -> DetectionParams:
    """Return the parameters with which a candidate runs.

    Boxes of lower scores suppress none above them, so the caller's boxes are a prefix of what comes back
    (:func:`over`).
    """
    return dataclasses.replace(params, conf_threshold=low_threshold(params.conf_threshold))


def over(boxes: Boxes, threshold: float) -> Boxes:
    """Return the boxes that the caller asked for, of those that a lowered threshold found."""
    # float32 on both sides: the inference process compares so.
    return boxes[boxes[:, 4] >= np.float32(threshold)]


class Tap:
    """Made with the stream, closed with it. All methods belong to the event loop."""

    def __init__(
        self,
        origin: Origin,
        offer: Callable[[Candidate], bool],
        now: float,
        *,
        still: bool = False,
        compare: Compare | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._origin = origin
        self._interval_s = interval_s
        #: None where no other model is to look.
        self._compare = compare
        #: Its pictures have nothing to do with each other: no neighbours, no last frame.
        self._still = still
        self._offer = offer
        # A stream's first candidate comes at once: it may not live for long.
        self._next_at = now
        #: None until the first detection is finished.
        self._last: Shot | None = None
        #: The newest candidate, while something of it is missing.
        self._waiting: _Waiting | None = None

    def wants(self, now: float) -> bool:
        """Whether the frame that starts now is to be a candidate; run it with :func:`lowered` then."""
        if now < self._next_at:
            return False
        self._next_at = now + self._interval_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        return True

    def finished(self, shot: Shot, all_boxes: Boxes | None) -> None:
        """Take note of a detection; ``all_boxes`` are those of a candidate, None for all other frames."""
        self._frame_came(shot)
        if all_boxes is not None:
            self._begin(shot, all_boxes)
        if not self._still:
            self._last = shot

    def report(self, note: str) -> tuple[int, bool] | None:
        """Hand over the last frame because a person asks for it; returns its seq and whether it was taken.

        None when no detection of this stream has finished yet.
        """
        shot = self._last
        if shot is None:
            return None
        candidate = self._candidate(shot, shot.boxes, shot.params.conf_threshold, None)
        return shot.seq, self._offer(dataclasses.replace(candidate, reported=True, note=note))

    def close(self) -> None:
        """The stream has ended: its last candidate gets no neighbour any more."""
        self._release()
        self._last = None

    def _begin(self, shot: Shot, all_boxes: Boxes) -> None:
        """Make a candidate; it is offered when nothing of it is missing any more."""
        self._release()  # an older one that still waits goes as it is
        last = self._last
        before = last.boxes if last is not None and shot.at - last.at <= NEIGHBOUR_S else None
        candidate = self._candidate(shot, all_boxes, low_threshold(shot.params.conf_threshold), before)
        waiting = self._waiting = _Waiting(candidate, shot.at, not self._still, for_rival=False)
        if self._compare is not None:
            waiting.for_rival = True
            if not self._compare(shot, lambda rival: self._compared(waiting, rival)):
                waiting.for_rival = False
        self._release_if_complete()

    def _frame_came(self, shot: Shot) -> None:
        waiting = self._waiting
        if waiting is None or not waiting.for_frame:
            return
        waiting.for_frame = False
        if shot.at - waiting.at <= NEIGHBOUR_S:
            waiting.candidate = dataclasses.replace(waiting.candidate, after=shot.boxes)
        self._release_if_complete()

    def _compared(self, waiting: _Waiting, rival: Rival | None) -> None:
        waiting.for_rival = False
        if rival is not None:
            waiting.candidate = dataclasses.replace(waiting.candidate, rival=rival)
        if self._waiting is waiting:
            self._release_if_complete()

    def _release_if_complete(self) -> None:
        if self._waiting is not None and not self._waiting.for_frame and not self._waiting.for_rival:
            self._release()

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._offer(waiting.candidate)

    def _candidate(self, shot: Shot, boxes: Boxes, threshold: float, before: Boxes | None) -> Candidate:
        return Candidate(
            origin=self._origin,
            captured_at=shot.captured_at,
            seq=shot.seq,
            threshold=shot.params.conf_threshold,
            low_threshold=threshold,
            iou_threshold=shot.params.iou_threshold,
            class_ids=shot.params.class_ids,
            width=shot.width,
            height=shot.height,
            rotation=shot.rotation,
            data=shot.data,
            boxes=boxes,
            before=before,
        )
