"""Measures the demand of each live stream of a version, and grants rates under overload. Pure.

`fair_rates` computes the rates. `version_queue` owns the `StreamRates` and chooses the next stream by the
same demands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

from inference.core.fair_queueing import Flow
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result
from streamer.scheduling.clients import Client
from streamer.scheduling.decode_cost import Kind, LastHint
from streamer.scheduling.device_shares import DeviceShares
from streamer.scheduling.fair_rates import FairRates, share_for_one_more
from streamer.scheduling.job import Job
from streamer.scheduling.measured_capacity import expected_fps

#: Period in which the rates of streams are measured and granted.
FAIR_RATE_S = 0.5
#: A stream below this smoothed rate counts as paused; at usual rates it has sent nothing for some seconds.
_SILENT_FPS = 0.01
#: Gain of the rate that a stream asks for: a time constant of 5 s, in which the demand is steady even for
#: streams of one frame per second. At first it is the mean since the stream began.
_ASKED_GAIN = FAIR_RATE_S / 5.0
#: Gain with which it rises while the stream is restrained: a time constant of 30 s, because it does not fall
#: then, and frames that a network has held up arrive all at once.
_RESTRAINED_GAIN = FAIR_RATE_S / 30.0
#: A client obeys its grant if it sends at least this part of it; one that sends less has no more frames. A
#: client that leaves out every second frame of its camera sends half of a grant just below the camera's rate.
_OBEYED = 0.45
#: Grants that have begun because streams ask for more than the capacity end when they ask for less than this
#: part of it, so that an error of the capacity does not make them come and go.
_RELIEVED = 0.95
#: Gain of the mean decode time, for each frame.
_DECODE_GAIN = 0.02


class Source(Protocol):
    """Describes a live stream to the dispatcher."""

    key: int
    declared_fps: float | None

    @property
    def client(self) -> Client:
        """The client that owns the stream."""

    @property
    def pending(self) -> bool:
        """Whether a frame waits, even if it may not start now."""

    def has_ready_frame(self, now: float) -> bool:
        """Return whether a frame waits that may start now."""

    def take(self, now: float) -> Job | None:
        """Take the next frame; return None if all waiting frames were too old."""

    def grant(self, max_fps: float | None) -> None:
        """Tell the client its granted rate."""


@dataclass(slots=True)
class Demand:
    """Holds the recent demand of a stream and the expected cost of its frames."""

    flow: Flow
    #: Frames that have arrived since the rates were last shared.
    arrived: int = 0
    #: Frames per second that arrive, smoothed.
    fps: float = 0.0
    #: Whether its frames wait for the device, so that the stream could use more than it sends now.
    backlogged: bool = False
    #: Expected decode time of one of its frames, in milliseconds.
    decode_ms: float = 0.0
    #: Peak memory of decoding its last frame, in bytes.
    nbytes: int = 0
    #: The kind of that frame, and the cache that avoids guessing the kind of each frame anew.
    kind: Kind | None = None
    hint: LastHint = field(default_factory=LastHint)
    #: Number of the turn in which the stream was last served.
    served: int = 0
    #: Frames per second that arrive, smoothed for longer than `fps`, and the number of periods measured.
    arriving_fps: float = 0.0
    periods: int = 0
    #: The same, smoothed for longer still, from when the stream was last restrained.
    steady_fps: float = 0.0
    #: Frames per second that the client asks for. A client sends less while a grant or waiting frames
    #: restrain it, so the rate does not fall during that time.
    asked_fps: float = 0.0
    restrained: bool = False

    def update_asked(self, *, restrained: bool) -> None:
        """Update :attr:`asked_fps` with the frames that have arrived in the last `FAIR_RATE_S`."""
        # Nothing restrains the first frames, of which a client may send as many as its window allows.
        restrained = restrained and self.periods > 0
        if self.restrained and not restrained:
            # The client needs a moment to return to its own rate.
            self.arriving_fps = self.asked_fps
        elif restrained and not self.restrained:
            self.steady_fps = self.asked_fps
        self.restrained = restrained
        self.periods += 1
        arriving_fps, gain = self.arrived / FAIR_RATE_S, max(_ASKED_GAIN, 1.0 / self.periods)
        self.arriving_fps += gain * (arriving_fps - self.arriving_fps)
        self.steady_fps += _RESTRAINED_GAIN * (arriving_fps - self.steady_fps)
        self.asked_fps = max(self.asked_fps, self.steady_fps) if restrained else self.arriving_fps


class StreamRates:
    """Keeps the demands and granted rates of the live streams of one version.

    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._version = ""
        self._shares = DeviceShares()
        #: Demand of each open stream by its key. The queue reads it and stores the cost of decoding there.
        self.demands: dict[int, Demand] = {}
        self._sources: dict[int, Source] = {}
        #: Demands of the streams that have sent recently or have a limited rate. Only these are looked at
        #: regularly, so that thousands of silent streams cost nothing.
        self._active: dict[int, Demand] = {}
        #: Frames per second that the device achieved in its recent runs; smoothed, 0 until it has run.
        self._observed_fps = 0.0
        #: Mean processor time of decoding a frame in milliseconds; 0 until one was decoded.
        self._decode_ms = 0.0
        self._granted: FairRates[int] = FairRates()
        #: Whether streams asked for more than the device can run when the rates were last shared.
        self._overloaded = False
        #: Mean of the rates that active streams asked for when there were any.
        self._mean_asked_fps = 0.0

    def divide_device(self, version: str, shares: DeviceShares) -> None:
        """Share the device, as ``version``, with everyone else who claims a part of it."""
        self._version, self._shares = version, shares

    def open(self, source: Source, demand: Demand) -> None:
        """Register a stream with its initial demand."""
        self._sources[source.key] = source
        self.demands[source.key] = demand

    def close(self, key: int) -> None:
        """Forget a stream."""
        for table in (self._sources, self.demands, self._active):
            table.pop(key, None)
        if not self.demands:  # `share` is not called without streams
            self._shares.claim(self._version, 0.0, 0)

    def count_arrival(self, key: int) -> bool:
        """Count a frame that has arrived; return whether the stream is open."""
        demand = self.demands.get(key)
        if demand is None:
            return False
        demand.arrived += 1
        if key not in self._active:
            self._active[key] = demand
            declared_fps = self._sources[key].declared_fps
            if declared_fps is not None and not demand.periods:  # it fades if the client sends less
                demand.arriving_fps = demand.asked_fps = declared_fps
                demand.periods = round(1 / _ASKED_GAIN)
        return True

    def observe(self, model: ServedModel, stream: int, result: Result) -> None:
        """Learn from one result the rate of the device, and whether frames of ``stream`` have to wait."""
        # Inference threads that share a device wait for each other, and their run times include this wait.
        # Therefore the rate of one thread is multiplied by their number.
        fps = model.inference_threads * result.batch_size / max(result.inference_ms, 1e-3) * 1e3
        self._observed_fps += (fps - self._observed_fps) * (0.05 if self._observed_fps else 1.0)
        demand = self.demands.get(stream)
        if demand is not None:
            demand.backlogged = result.queue_ms > max(5.0, result.inference_ms / 2)

    def decoded(self, cost_ms: float) -> None:
        """Learn from the processor time of decoding a frame or a posted image."""
        self._decode_ms += (cost_ms - self._decode_ms) * (_DECODE_GAIN if self._decode_ms else 1.0)

    def capacity_fps(self, model: ServedModel) -> float:
        """Return the rate that may be promised to all streams together if they have the device alone.

        It is the larger of the rates at warm-up and in recent runs. The larger one is safe, because mailboxes
        drop the frames that are too many. On a CPU, decoding takes its part of the cores.
        """
        # Elsewhere the decoders work beside the device, so the number of cores is left out.
        return expected_fps(model, self._decode_ms, math.inf, max(model.capacity_fps, self._observed_fps))

    def newcomers_share_fps(self, model: ServedModel, client: Client) -> float:
        """Return the frames per second that one more stream of ``client`` would get."""
        wanted = {key: self._wanted_fps(key) for key in self._active}
        owners = {key: self._sources[key].client for key in self._active}
        capacity_fps = self.capacity_fps(model) * self._shares.share(self._version, one_more=True)
        return share_for_one_more(wanted, owners, client, capacity_fps)

    def asked_fps(self) -> tuple[float, float, float]:
        """Return what all streams ask for, what of it is granted, and the mean of a stream, in fps.

        The mean is the last known one if no stream is active.
        """
        asked_fps = granted_fps = 0.0
        for key, demand in self._active.items():
            asked_fps += demand.asked_fps
            granted_fps += min(demand.asked_fps, self._granted.rate(key))
        if asked_fps:
            self._mean_asked_fps = asked_fps / len(self._active)
        return asked_fps, granted_fps, self._mean_asked_fps

    def skip(self) -> None:
        """Forget what has arrived since the rates were last shared.

        Clients may not send while the inference process restarts, and that does not change what they ask for.
        """
        for demand in self._active.values():
            demand.arrived = 0

    def share(self, model: ServedModel, now: float) -> None:
        """Measure the demand of each stream in the last ``FAIR_RATE_S``, and send the grants that changed."""
        active = self._active
        for key, demand in list(active.items()):
            # This smooths the rate over about a second.
            demand.fps += 0.5 * (demand.arrived / FAIR_RATE_S - demand.fps)
            demand.update_asked(restrained=demand.backlogged or self._obeys(key, demand))
            demand.arrived = 0
            if demand.fps < _SILENT_FPS and not self._granted.limits(key):
                demand.fps, demand.backlogged, demand.asked_fps = 0.0, False, 0.0
                del active[key]
        device_fps = self.capacity_fps(model)
        wanted = {key: self._sent_fps(key, demand) for key, demand in active.items()}
        sent_fps = sum(wanted.values())
        capacity_fps = self._claimed_fps(sent_fps, device_fps)
        if sent_fps > capacity_fps * (_RELIEVED if self._overloaded else 1.0):
            self._overloaded = True
            wanted = {key: self._wanted_fps(key) for key in active}
            capacity_fps = self._claimed_fps(sum(wanted.values()), device_fps)
            if sent_fps <= capacity_fps:
                capacity_fps *= _RELIEVED
        else:
            self._overloaded = False
        owners = {key: self._sources[key].client for key in active}
        for key, fps in self._granted.update(wanted, owners, capacity_fps, now).items():
            self._sources[key].grant(None if fps is None else max(1.0, round(fps, 1)))

    def _claimed_fps(self, fps: float, device_fps: float) -> float:
        """Claim a rate of the device for all active streams, and return the rate that they may have."""
        self._shares.claim(self._version, fps / device_fps, len(self._active))
        return device_fps * self._shares.share(self._version)

    def _obeys(self, key: int, demand: Demand) -> bool:
        """Return whether a grant is the reason why a stream does not send more."""
        return self._granted.limits(key) and demand.fps >= _OBEYED * self._granted.rate(key)

    def _sent_fps(self, key: int, demand: Demand) -> float:
        """Return the rate that a stream would send without a grant, in frames per second.

        While it obeys a grant, that is the rate of before. Otherwise the grants of streams that obey would
        end, because the device has time left, and begin anew when all send more again.
        """
        return max(demand.fps, demand.asked_fps) if self._obeys(key, demand) else demand.fps

    def _wanted_fps(self, key: int) -> float:
        """Return the rate that a stream would use, in frames per second.

        It is the rate that it would send, or the declared rate if that is larger and frames of the stream
        wait. It is infinite if frames wait and the stream has declared no rate.
        """
        demand = self.demands[key]
        sent_fps = self._sent_fps(key, demand)
        if not demand.backlogged:
            return sent_fps
        return max(sent_fps, self._sources[key].declared_fps or math.inf)
