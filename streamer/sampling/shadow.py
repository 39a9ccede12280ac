"""Makes shadow runs: runs frames that one model version has answered on another one, on an idle device.

A run is for a sample candidate, for a pair of results that is compared, or for both. Frames wait encoded
until the device is idle, for `MAX_WAIT_S` at most. No client waits for a shadow run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from inference.core.detection_params import DetectionParams
from inference.ipc.served_model import ServedModel
from streamer.accounting.shadow_metrics import ShadowMetrics
from streamer.comparison.draw import hash_name, is_drawn
from streamer.comparison.pair import ComparedPair, PairSink, VersionResult
from streamer.comparison.translation import translate
from streamer.core import clock
from streamer.imaging.frame import DecodedFrame
from streamer.imaging.image_header import Limits
from streamer.sampling.candidate import ShadowResult
from streamer.sampling.sampler import Observation, Sampler, boxes_above, with_low_threshold
from streamer.scheduling.decode_limiter import LONG_MS
from streamer.scheduling.errors import DeadlineExceeded
from streamer.scheduling.idle_runs import STREAM, Interrupted
from streamer.scheduling.job import Job, Prediction

log = logging.getLogger("streamer.shadow")

#: The version whose frames are drawn, and the one that runs them for comparison.
SERVED, SHADOW = "v1", "v2"
#: A frame that has not begun its run within this time is dropped.
MAX_WAIT_S = 0.5
#: Number of frames of a worker that may wait, and the bytes that they may keep.
MAX_WAITING = 4
MAX_WAITING_BYTES = 16 << 20
#: Above this demand over capacity of the replica nothing runs, and frames that are drawn are skipped.
MAX_LOAD = 0.7
#: Interval at which waiting frames try to start, and shortest time before without a frame of a client.
RETRY_S = 0.01

Data = bytes | memoryview | DecodedFrame
#: Gets the model, its boxes and the empty text; or no boxes, and one of `shadow_metrics.OUTCOMES`.
Taker = Callable[[ServedModel | None, Prediction | None, str], None]


class Runner(Protocol):
    """Describes the part of `IdleRuns` that shadow runs need."""

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Loaded models by version."""

    @property
    def running(self) -> bool:
        """Whether a job is in progress."""

    @property
    def mark(self) -> int | None:
        """Number of frames of clients that have begun so far; None while one is in work or waits."""

    def start(self, version: str, job: Job) -> bool:
        """Start a job if nothing runs and nothing waits; ``job.finish`` is then called once, later."""


@dataclass(slots=True, eq=False)
class _Frame:
    """Holds a frame that waits, or runs, and everybody who wants its boxes."""

    version: str
    data: Data
    rotation: int
    params: DetectionParams
    #: In monotonic seconds.
    expires: float
    takers: list[Taker]


class ShadowRuns:
    """Keeps the frames of one worker that wait for a shadow run. All methods run on the event loop.

    ``share`` returns the share of v1's frames to draw, ``load`` the demand over the capacity of the replica.
    """

    def __init__(
        self,
        runner: Runner,
        limits: Limits,
        metrics: ShadowMetrics,
        sink: PairSink,
        *,
        share: Callable[[], float],
        load: Callable[[], float],
    ) -> None:
        self._runner = runner
        self._limits = limits
        self._metrics, self._sink = metrics, sink
        self._share, self._load = share, load
        self._waiting: deque[_Frame] = deque()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        #: `Runner.mark` at the last try.
        self._mark: int | None = None
        self._posted = itertools.count()
        #: SHA-256 of v1's model, and since when frames that arrive run on it, in monotonic seconds.
        self._served, self._served_since = "", 0.0

    @property
    def has_shadow(self) -> bool:
        """Whether there is a model that can run v1's frames, too."""
        return SHADOW in self._runner.models

    def note_share(self) -> None:
        """Show the present share in the metrics."""
        self._metrics.set_share(self._share())

    def close(self) -> None:
        """Drop the frames that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._end(self._take(), "expired")

    # -- pairs -----------------------------------------------------------------------------------------

    def offer_post(
        self,
        version: str,
        client: int,
        data: bytes | memoryview,
        arrived: float,
        params: DetectionParams,
        found: Prediction,
        sampler: Sampler | None,
    ) -> None:
        """Take a posted image that ``version`` has answered.

        All images of a client, by its number, are one stream. Without a ``sampler``, they must not be kept.
        """
        if version == SERVED and self._share() > 0:
            name = hash_name(f"http:{client}")
            stream = ShadowStream(self, name, may_keep_image=sampler is not None, consecutive=False)
            stream.offer(next(self._posted), data, 0, arrived, params, found)

    def draws(self, stream: str, seq: int) -> bool:
        """Return whether a frame is drawn at the present share."""
        return is_drawn(stream, seq, self._share())

    def add_pair(
        self,
        stream: ShadowStream,
        seq: int,
        data: Data,
        rotation: int,
        arrived: float,
        params: DetectionParams,
        found: Prediction,
    ) -> None:
        """Run a drawn frame, in which v1 has ``found`` this with the client's ``params``."""
        self._metrics.drawn()
        served, other = (self._runner.models.get(version) for version in (SERVED, SHADOW))
        if served is None or other is None:
            self._metrics.ended("not_loaded")
            return
        if found.decode_ms > LONG_MS:
            self._metrics.ended("large")
            return
        if self._has_changed(served, arrived):
            self._metrics.ended("model_changed")
            return
        asked = translate(params, served.info, other.info)
        if asked is None:
            self._metrics.ended("other_classes")
            return
        at = time.time() - (clock.monotonic() - arrived)
        own = VersionResult.of(served, params.conf_threshold, found)

        def take(model: ServedModel | None, result: Prediction | None, outcome: str) -> None:
            self._metrics.ended(outcome or "run")
            if model is not None and result is not None:
                boxes = boxes_above(result.boxes, asked.conf_threshold)
                its = VersionResult.of(model, asked.conf_threshold, dataclasses.replace(result, boxes=boxes))
                size, whose = (found.width, found.height), (stream.may_keep_image, stream.consecutive)
                self._put(ComparedPair(stream.key, seq, at, *size, own, its, data, rotation, *whose))

        if self._load() > MAX_LOAD or not self._add(SHADOW, data, rotation, asked, take):
            self._metrics.ended("no_capacity")

    def _has_changed(self, served: ServedModel, arrived: float) -> bool:
        """Return whether a frame that arrived then may have run on the model that v1 had before this one."""
        if served.info.sha256 != self._served:
            self._served_since = clock.monotonic() if self._served else 0.0
            self._served = served.info.sha256
        return arrived < self._served_since

    def _put(self, pair: ComparedPair) -> None:
        try:
            self._sink.add(pair)
        except Exception:
            log.exception("a pair was not taken")

    # -- candidates ------------------------------------------------------------------------------------

    def start(
        self, version: str, observation: Observation, done: Callable[[ShadowResult | None], None]
    ) -> bool:
        """Run a frame of ``version`` on another version with the same classes; return whether it waits now.

        If so, ``done`` is called once, later: with the result, or with None if there is none.
        """
        models = self._runner.models
        own = models.get(version)
        labels = None if own is None else own.info.labels
        other = next(
            (name for name, m in models.items() if name != version and m.info.labels == labels), None
        )
        if other is None or self._load() > MAX_LOAD:
            return False
        low = with_low_threshold(observation.params)

        def take(model: ServedModel | None, found: Prediction | None, _: str) -> None:
            if model is None or found is None:
                done(None)
                return
            boxes = boxes_above(found.boxes, low.conf_threshold)
            done(ShadowResult(model.version, model.info.name, model.info.sha256, boxes))

        return self._add(other, observation.data, observation.rotation, low, take)

    # -- frames ----------------------------------------------------------------------------------------

    def _add(self, version: str, data: Data, rotation: int, params: DetectionParams, take: Taker) -> bool:
        """Keep a frame until its run; return False if there is no room for it."""
        for frame in self._waiting:
            if frame.data is data and frame.version == version and _differ_by_threshold(frame.params, params):
                lower = min(frame.params.conf_threshold, params.conf_threshold)
                frame.params = dataclasses.replace(params, conf_threshold=lower)
                frame.takers.append(take)
                return True
        nbytes = _held_bytes(data)
        if len(self._waiting) >= MAX_WAITING or self._bytes + nbytes > MAX_WAITING_BYTES:
            return False
        expires = clock.monotonic() + MAX_WAIT_S
        self._waiting.append(_Frame(version, data, rotation, params, expires, [take]))
        self._bytes += nbytes
        self._try_later()
        return True

    def _take(self) -> _Frame:
        frame = self._waiting.popleft()
        self._bytes -= _held_bytes(frame.data)
        return frame

    def _try_later(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._try)

    def _try(self) -> None:
        """Drop what has waited for too long, and start the oldest frame if nothing ran since the last try."""
        self._timer = None
        busy = self._load() > MAX_LOAD
        while self._waiting and self._waiting[0].expires < clock.monotonic():
            self._end(self._take(), "no_capacity" if busy else "expired")
        before, self._mark = self._mark, self._runner.mark
        # A moment between two frames of a busy client is too short; decoding for nothing costs clients time.
        quiet = self._mark is not None and self._mark == before
        if self._waiting and quiet and not busy and not self._runner.running:
            self._start()
        self._try_later()

    def _start(self) -> None:
        frame = self._waiting[0]
        model = self._runner.models.get(frame.version)
        if model is None:
            self._end(self._take(), "not_loaded")
            return

        def finish(outcome: Prediction | Exception) -> None:
            if isinstance(outcome, Prediction):
                for take in frame.takers:
                    take(model, outcome, "")
            elif isinstance(outcome, Interrupted):
                self._waiting.appendleft(frame)
                self._bytes += _held_bytes(frame.data)
                self._try_later()
            else:
                self._end(frame, "expired" if isinstance(outcome, DeadlineExceeded) else "failed")

        job = Job(frame.data, frame.rotation, frame.params, frame.expires, STREAM, finish, self._limits)
        if self._runner.start(frame.version, job):
            self._take()

    def _end(self, frame: _Frame, outcome: str) -> None:
        for take in frame.takers:
            take(None, None, outcome)


class ShadowStream:
    """Offers the answered frames of a stream of v1; its fields are those of `ComparedPair`."""

    def __init__(self, runs: ShadowRuns, key: str, *, may_keep_image: bool, consecutive: bool = True) -> None:
        self._runs = runs
        self.key = key
        self.may_keep_image = may_keep_image
        self.consecutive = consecutive

    def offer(
        self,
        seq: int,
        data: Data,
        rotation: int,
        arrived: float,
        params: DetectionParams,
        found: Prediction,
    ) -> None:
        """Take a frame with the boxes that its client gets; ``arrived`` is in monotonic seconds."""
        if not found.damaged and self._runs.draws(self.key, seq):
            self._runs.add_pair(self, seq, data, rotation, arrived, params, found)


def shadow_stream(
    runs: ShadowRuns | None, name: str, version: str, sampler: Sampler | None
) -> ShadowStream | None:
    """Return what takes the answered frames of a stream; None for a version whose frames are not drawn.

    ``name`` identifies the stream. Without a ``sampler``, its images must not be kept.
    """
    if runs is None or version != SERVED:
        return None
    return ShadowStream(runs, hash_name(name), may_keep_image=sampler is not None)


def _differ_by_threshold(one: DetectionParams, other: DetectionParams) -> bool:
    """Return whether two runs of a frame give the same boxes, apart from the threshold."""
    return dataclasses.replace(one, conf_threshold=other.conf_threshold) == other


def _held_bytes(data: Data) -> int:
    """Return the bytes that keeping a frame keeps; a part of a body keeps the whole body."""
    if isinstance(data, memoryview):
        return memoryview(data.obj).nbytes
    return len(data) if isinstance(data, bytes) else data.nbytes
