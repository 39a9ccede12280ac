"""Chooses about one frame per second of each stream as a candidate for the sampling process.

A sampler runs on the worker's event loop. For each finished detection it only compares times. It keeps
references to the last frame of the stream and to the frame of a pending candidate, and to no other frames.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.models.model import ModelInfo
from streamer.imaging.frame import DecodedFrame
from streamer.sampling.candidate import POSTED, UNNAMED, SampleCandidate, ShadowResult, StreamInfo, slug
from streamer.sampling.reports import ReportOutcome

#: Seconds between two candidates of a stream. Jitter keeps streams from submitting at the same moments. The
#: sampling process chooses among the candidates; more of them would only show the same scene again.
INTERVAL_S = 1.0
JITTER = 0.2
#: Flicker is not computed across frames that are further apart.
MAX_FRAME_GAP_S = 0.5
#: A candidate runs with half the caller's threshold, but at least with this one: boxes with lower scores are
#: noise.
MIN_LOW_THRESHOLD = 0.1


# Nobody changes an instance, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class Observation:
    """Holds one finished detection. Sizes are in pixels of the upright image."""

    data: bytes | memoryview | DecodedFrame
    seq: int
    rotation: int
    #: Arrival of the frame, in monotonic and in unix seconds.
    at: float
    captured_at: float
    width: int
    height: int
    params: DetectionParams
    #: Boxes over the caller's threshold.
    boxes: Boxes


#: Starts running an observation through another model, and calls back at once or later, with None if the run
#: failed. Returns False if the run does not start.
StartShadowRun = Callable[[Observation, Callable[[ShadowResult | None], None]], bool]


#: Sends a report, and calls back later with its outcome.
StartReport = Callable[[SampleCandidate, Callable[[ReportOutcome], None]], None]


@dataclass(slots=True)
class _Pending:
    """Holds a candidate that waits for the next frame, for a shadow run, or for both."""

    candidate: SampleCandidate
    #: Arrival of its frame, monotonic seconds.
    at: float
    for_frame: bool
    for_shadow: bool


def low_threshold(threshold: float) -> float:
    """Return the threshold with which candidates run; never above the caller's."""
    return min(threshold, max(MIN_LOW_THRESHOLD, threshold / 2))


def with_low_threshold(params: DetectionParams) -> DetectionParams:
    """Return the parameters with which a candidate runs.

    A box never suppresses a box with a higher score. The caller's boxes are therefore a prefix of the result;
    see :func:`boxes_above`.
    """
    return dataclasses.replace(params, conf_threshold=low_threshold(params.conf_threshold))


def boxes_above(boxes: Boxes, threshold: float) -> Boxes:
    """Return those of the boxes found with the low threshold that reach the caller's ``threshold``."""
    # Compare as float32, as the inference process does.
    return boxes[boxes[:, 4] >= np.float32(threshold)]


class Sampler:
    """Submits candidates of one stream until it ends. All methods run on the event loop."""

    def __init__(
        self,
        stream: StreamInfo,
        submit: Callable[[SampleCandidate], bool],
        now: float,
        start_report: StartReport,
        *,
        unrelated: bool = False,
        start_shadow_run: StartShadowRun | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._stream = stream
        self._interval_s = interval_s
        #: None if there are no shadow runs.
        self._start_shadow_run = start_shadow_run
        #: Whether the images of the stream are unrelated. If so, candidates get no neighbouring frames, and
        #: the last image is not kept.
        self._unrelated = unrelated
        self._submit = submit
        self._start_report = start_report
        # The first frame of a stream becomes a candidate at once, because streams may be short.
        self._next_at = now
        #: None until the first detection is finished.
        self._last: Observation | None = None
        #: The newest candidate, while it is incomplete.
        self._pending: _Pending | None = None

    def wants(self, now: float) -> bool:
        """Return whether the frame that starts now becomes a candidate.

        The caller must run such a frame with the parameters of :func:`with_low_threshold`.
        """
        if now < self._next_at:
            return False
        self._next_at = now + self._interval_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
        return True

    def add(self, observation: Observation, all_boxes: Boxes | None) -> None:
        """Add a finished detection.

        ``all_boxes`` are all boxes over the low threshold if :meth:`wants` chose the frame, otherwise None.
        """
        self._add_following_frame(observation)
        if all_boxes is not None:
            self._begin(observation, all_boxes)
        if not self._unrelated:
            self._last = observation

    def report(self, note: str, answer: Callable[[int, ReportOutcome], None]) -> bool:
        """Send the last frame because a person reports it.

        Calls ``answer`` once, later, with the frame's seq and what became of it. Returns False, and never
        calls it, if no detection of this stream has finished yet.
        """
        last = self._last
        if last is None:
            return False
        candidate = self._candidate(last, last.boxes, last.params.conf_threshold, None)
        reported = dataclasses.replace(candidate, reported=True, note=note)
        self._start_report(reported, functools.partial(answer, last.seq))
        return True

    def close(self) -> None:
        """Submit a pending candidate when the stream ends.

        The last candidate has no following frame, so flicker cannot be computed for it.
        """
        self._submit_pending()
        self._last = None

    def _begin(self, observation: Observation, all_boxes: Boxes) -> None:
        """Create a candidate, which is submitted as soon as it is complete."""
        self._submit_pending()  # an older candidate is submitted incomplete
        last = self._last
        before = last.boxes if last is not None and observation.at - last.at <= MAX_FRAME_GAP_S else None
        low = low_threshold(observation.params.conf_threshold)
        candidate = self._candidate(observation, all_boxes, low, before)
        pending = self._pending = _Pending(candidate, observation.at, not self._unrelated, for_shadow=False)
        if self._start_shadow_run is not None:
            # Set this before the call, which may call back at once.
            pending.for_shadow = True
            if not self._start_shadow_run(observation, lambda result: self._add_shadow(pending, result)):
                pending.for_shadow = False
        self._submit_if_complete()

    def _add_following_frame(self, observation: Observation) -> None:
        pending = self._pending
        if pending is None or not pending.for_frame:
            return
        pending.for_frame = False
        if observation.at - pending.at <= MAX_FRAME_GAP_S:
            pending.candidate = dataclasses.replace(pending.candidate, after=observation.boxes)
        self._submit_if_complete()

    def _add_shadow(self, pending: _Pending, result: ShadowResult | None) -> None:
        pending.for_shadow = False
        if result is not None:
            pending.candidate = dataclasses.replace(pending.candidate, shadow=result)
        if self._pending is pending:
            self._submit_if_complete()

    def _submit_if_complete(self) -> None:
        if self._pending is not None and not self._pending.for_frame and not self._pending.for_shadow:
            self._submit_pending()

    def _submit_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            self._submit(pending.candidate)

    def _candidate(
        self, observation: Observation, boxes: Boxes, threshold: float, before: Boxes | None
    ) -> SampleCandidate:
        return SampleCandidate(
            stream=self._stream,
            captured_at=observation.captured_at,
            seq=observation.seq,
            threshold=observation.params.conf_threshold,
            low_threshold=threshold,
            iou_threshold=observation.params.iou_threshold,
            agnostic_nms=observation.params.agnostic_nms,
            class_ids=observation.params.class_ids,
            width=observation.width,
            height=observation.height,
            rotation=observation.rotation,
            data=observation.data,
            boxes=boxes,
            before=before,
        )


#: Starts running an observation of a version through another version; see `sampler.StartShadowRun`.
StartShadowRunOf = Callable[[str, Observation, Callable[[ShadowResult | None], None]], bool]


class SamplerFactory:
    """Creates samplers, all with the same settings."""

    def __init__(
        self,
        submit: Callable[[SampleCandidate], bool] | None,
        start_report: StartReport | None,
        denied: Collection[str],
        start_shadow_run: StartShadowRunOf | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Create a factory whose samplers send their candidates with ``submit``.

        ``submit`` must not wait. It sends candidates and ``start_report`` reports; both are None when
        sampling is off. ``denied`` are the names of streams that are never sampled.
        """
        self._submit = submit
        self._start_report = start_report
        self._interval_s = interval_s
        self._start_shadow_run = start_shadow_run
        self._denied = frozenset(slug(name) for name in denied)

    @property
    def on(self) -> bool:
        """Whether sampling is on."""
        return self._submit is not None

    def create(
        self, name: str, transport: str, version: str, model: ModelInfo, *, unrelated: bool = False
    ) -> Sampler | None:
        """Return a sampler for the stream of that name; None when its frames must not be kept.

        ``unrelated`` says that the images of the stream are unrelated to each other.
        """
        slugged = slug(name)
        if self._submit is None or self._start_report is None or slugged in self._denied:
            return None
        session = secrets.randbits(32) if slugged == UNNAMED else 0
        stream = StreamInfo(slugged, transport, version, model.name, model.sha256, model.labels, session)
        start = self._start_shadow_run
        return Sampler(
            stream,
            self._submit,
            time.monotonic(),
            self._start_report,
            unrelated=unrelated,
            start_shadow_run=functools.partial(start, version) if start is not None else None,
            interval_s=self._interval_s,
        )


class PostSampler:
    """Holds the samplers of posted images, one per version. All posted images count as one stream."""

    def __init__(self, samplers: SamplerFactory) -> None:
        self._samplers = samplers
        #: The digest of the model and the sampler, by version.
        self._by_version: dict[str, tuple[str, Sampler | None]] = {}

    def sampler_of(self, version: str, model: ModelInfo) -> Sampler | None:
        """Return the sampler of a version with this model; None if posted images are not sampled."""
        digest, sampler = self._by_version.get(version, ("", None))
        if digest != model.sha256:
            if sampler is not None:
                sampler.close()
            sampler = self._samplers.create(POSTED, "http", version, model, unrelated=True)
            self._by_version[version] = model.sha256, sampler
        return sampler
