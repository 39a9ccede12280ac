"""Measures how many frames per second a replica can run. Pure.

`replica_load` feeds it with what all workers have run. The rate that the device would have by its warm-up is
right while nothing competes with it. On a CPU, decoding uses the same cores; on a GPU, the cores may decode
more slowly than the card runs. What remains is learned while the replica is saturated: the rate that it then
reaches is its capacity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from inference.ipc.served_model import ServedModel

#: Length of a window over which the rate is measured. Workers post their counts once a second and at
#: different moments, so a shorter window would contain too many or too few of them.
WINDOW_S = 4.0
#: A longer window contains a pause of this process and is discarded.
_WINDOW_MAX_S = 3 * WINDOW_S
#: A window is saturated if frames waited during at least this part of it, and if at least this part of the
#: work was done by workers in which they waited.
_SATURATED = 0.8
#: Gain for a saturated window after the first one, and for an unsaturated one.
_GAIN, _UNSATURATED_GAIN = 0.2, 0.3
#: Time constant of the mean decode time of a frame.
_DECODE_S = 30.0
#: Limits of the learned factor: beyond them, something else than the speed of the device was measured.
_LEAST, _MOST = 0.05, 4.0


@dataclass(frozen=True, slots=True)
class Work:
    """Holds what workers have done so far; differences of two of these describe the time between them."""

    #: Frames with a result, and processor seconds of decoding them.
    frames: float = 0.0
    decode_s: float = 0.0
    #: Seconds of the device by the measurements of the warm-up.
    device_s: float = 0.0
    #: The part of ``device_s`` that was done while frames waited for the device.
    saturated_s: float = 0.0
    #: Seconds during which frames waited, added up over the workers.
    full_s: float = 0.0

    def since(self, earlier: Work) -> Work:
        """Return what was done after ``earlier``."""
        return Work(
            self.frames - earlier.frames,
            self.decode_s - earlier.decode_s,
            self.device_s - earlier.device_s,
            self.saturated_s - earlier.saturated_s,
            self.full_s - earlier.full_s,
        )


def expected_fps(
    model: ServedModel, decode_ms: float, cores: float, device_fps: float | None = None
) -> float:
    """Return the frames per second of a version alone, if decoding a frame takes ``decode_ms`` of a core.

    ``device_fps`` is the rate of its runs without decoding; by default that of the warm-up.
    """
    return 1.0 / _seconds(1.0 / (device_fps or model.capacity_fps), decode_ms / 1e3, model, cores)


def _seconds(device_s: float, decode_s: float, model: ServedModel, cores: float) -> float:
    """Return the seconds of the whole replica that this much work takes.

    On a CPU, models and decoders use the same cores, as many as models run in parallel; elsewhere they work
    beside each other and the slower one decides.
    """
    if model.info.provider == "cpu":
        return device_s + decode_s / model.parallel
    return max(device_s, decode_s / cores)


class MeasuredCapacity:
    """Learns the factor between the expected rate of a replica and the one that it reaches.

    ``factor`` and ``decode_ms``, the mean decode time of a frame, are those of an earlier process, if any.
    Times are monotonic seconds.
    """

    def __init__(self, cores: int, factor: float = 0.0, decode_ms: float = 0.0) -> None:
        #: 0 until the replica has been saturated.
        self.factor = factor
        self.decode_ms = decode_ms
        self._cores = cores
        self._begun: float | None = None
        self._at_begin = Work()
        #: Smoothed utilisation outside of saturation, as part of the expected rate.
        self._reached = 0.0

    def interrupt(self) -> None:
        """Discard the current window, because the inference process was not ready during all of it."""
        self._begun = None

    def observe(self, done: Work, model: ServedModel, now: float) -> None:
        """Learn from the work that all workers have done so far; ``model`` is any version of the replica."""
        begun = self._begun
        if begun is not None and now - begun < WINDOW_S:
            return
        work, self._begun, earlier = done.since(self._at_begin), now, begun
        self._at_begin = done
        if earlier is None or now - earlier > _WINDOW_MAX_S:
            return
        if work.frames <= 0 or work.device_s <= 0 or work.decode_s < 0:
            return  # nothing ran, or a worker was replaced
        length_s = now - earlier
        self._learn_decoding(work, length_s)
        utilisation = _seconds(work.device_s, work.decode_s, model, self._cores) / length_s
        if work.full_s >= _SATURATED * length_s and work.saturated_s >= _SATURATED * work.device_s:
            self._learn(utilisation)
        else:
            # A rate that was reached is possible, so the capacity is not below it.
            self._reached += _UNSATURATED_GAIN * (utilisation - self._reached)
            if self._reached > (self.factor or 1.0):
                self.factor = min(_MOST, self._reached)

    def _learn(self, utilisation: float) -> None:
        known = self.factor or utilisation
        self.factor = min(_MOST, max(_LEAST, known + _GAIN * (utilisation - known)))
        self._reached = 0.0

    def _learn_decoding(self, work: Work, length_s: float) -> None:
        mean_ms = work.decode_s / work.frames * 1e3
        gain = -math.expm1(-length_s / _DECODE_S) if self.decode_ms else 1.0
        self.decode_ms += gain * (mean_ms - self.decode_ms)
