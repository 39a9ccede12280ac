"""Describes what is simulated: the cameras, the network, the machine and the settings of the service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from streamer.simulation.errors import BadScenario
from streamer.simulation.streams.run_times import RunTimes

#: Largest number of streams, and their largest frame rate.
MAX_STREAMS = 100_000
MAX_FPS = 1000.0
Jitter = Literal["uniform", "normal"]


@dataclass(frozen=True, slots=True)
class Group:
    """Holds a number of equal cameras."""

    count: int
    fps: float

    def __str__(self) -> str:
        return f"{self.count}x{self.fps:g}"


@dataclass(frozen=True, slots=True)
class Mix:
    """Holds all cameras of a simulation, in groups of equal ones."""

    groups: tuple[Group, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.groups))

    @property
    def streams(self) -> int:
        """Number of cameras."""
        return sum(group.count for group in self.groups)

    @property
    def fps(self) -> float:
        """Frames per second of all cameras together."""
        return sum(group.count * group.fps for group in self.groups)

    def times(self, factor: int) -> Mix:
        """Return the mix with ``factor`` times as many cameras in each group."""
        return Mix(tuple(Group(group.count * factor, group.fps) for group in self.groups))


def parse_mix(text: str) -> Mix:
    """Return the mix that ``COUNTxFPS,COUNTxFPS`` describes. Raises BadScenario."""
    groups = []
    for part in text.split(","):
        count, sign, fps = part.partition("x")
        try:
            group = Group(int(count), float(fps))
        except ValueError:
            group = Group(0, 0.0)
        if not sign or group.count < 1 or not 0 < group.fps <= MAX_FPS:
            raise BadScenario(
                f"streams: expected COUNTxFPS, such as 16x10 or 100x5,20x30, with at most {MAX_FPS:g} frames "
                f"per second; found {part.strip()!r}"
            )
        groups.append(group)
    mix = Mix(tuple(groups))
    if mix.streams > MAX_STREAMS:
        raise BadScenario(f"streams: expected at most {MAX_STREAMS}; found {mix.streams}")
    return mix


@dataclass(frozen=True, slots=True)
class Cameras:
    """Holds how the cameras send. Times are in seconds."""

    #: Deviation of a capture from its regular time: half the width (uniform), or standard deviation (normal).
    jitter_s: float = 0.002
    jitter: Jitter = "uniform"
    #: Delay of the network in each direction, and its standard deviation.
    latency_s: float = 0.005
    latency_jitter_s: float = 0.001
    #: Mean time between two stalls of a connection, and their length; 0 means that there are none.
    stall_every_s: float = 0.0
    stall_s: float = 0.0
    #: Number of clients that the streams belong to; 0: each stream is a client of its own.
    clients: int = 0
    #: Time in which the streams connect one after the other.
    ramp_s: float = 5.0
    #: Width and height of the frames in pixels.
    size: tuple[int, int] = (640, 480)
    #: Images per second that other clients POST, at random times.
    posts_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """Holds the cores and the device, and what a frame costs them besides the run. Times are in seconds."""

    run_times: RunTimes
    cores: int
    #: Whether runs use a device of their own; otherwise they use the cores.
    accelerator: bool = False
    #: Threads that call the model; 0: as many as the service would have.
    inference_threads: int = 0
    #: Total speed of several runs at once on an accelerator, where one alone has speed 1.
    gain: float = 1.0
    #: Speed of a core while all are busy, where a core alone has speed 1.
    core_efficiency: float = 1.0
    workers: int = 1
    #: Processor time of a frame in a decoder, on the event loop of a worker, in the inference process besides
    #: its run, and in a client on the same cores.
    decode_s: float = 0.0012
    frame_s: float = 0.0005
    post_s: float = 0.0003
    client_s: float = 0.0
    #: Standard deviation of run times and decode times, relative to their mean.
    run_jitter: float = 0.05
    #: Time until a thread or process that sleeps gets a message.
    wake_up_s: float = 0.0
    #: Cores that the service and everything else use without any stream.
    idle_cores: float = 0.0

    @property
    def threads(self) -> int:
        """Number of inference threads, by default as `inference.engine.process` chooses it."""
        if self.inference_threads:
            return self.inference_threads
        if not self.accelerator:
            return self.cores
        return 4 if tuple(self.run_times.cost_ms) == (1,) else 2

    @property
    def parallel(self) -> int:
        """Number of runs that the device executes in parallel."""
        return 1 if self.accelerator else self.threads

    @property
    def prefetch_depth(self) -> int:
        """Batches in flight, as `inference.engine.process` sets it."""
        return self.threads + 1 if self.accelerator else 2 * self.parallel

    @property
    def decoders(self) -> int:
        """Number of decoders of each worker, as `streamer.decoding.decoder_supervisor` sets it."""
        return max(2, -(-self.cores // self.workers))


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Holds the settings of the service that matter here, with their defaults. Times are in seconds."""

    stream_min_fps: float = 5.0
    stream_max_age_s: float = 0.5
    interactive_share: float = 0.25
    request_queue_s: float = 1.0
    request_queue_max: int = 128
    request_timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Holds all that a simulation depends on; equal scenarios have equal outcomes."""

    mix: Mix
    machine: Machine
    cameras: Cameras = field(default_factory=Cameras)
    settings: ServiceSettings = field(default_factory=ServiceSettings)
    #: Virtual seconds between the end of the ramp and the measurement, and length of the measurement.
    settle_s: float = 5.0
    seconds: float = 20.0
    seed: int = 1
