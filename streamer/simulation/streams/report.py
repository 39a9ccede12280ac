"""Summarises what a simulation observed: ages, delivered rates, drops, fairness and utilisation."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamer.accounting.ledger import Ledger
from streamer.simulation.streams.camera import PostRecord, StreamRecord
from streamer.simulation.streams.processor import Processor, Threads
from streamer.simulation.streams.scenario import Machine, Scenario


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Holds the used parts, 0 to 1, of what executes work."""

    #: The accelerator; on a CPU the same as the cores.
    device: float
    cores: float
    #: The event loop of the worker with the most work, relative to one core.
    event_loop: float


class Usage:
    """Remembers how much work was done when a measurement begins."""

    def __init__(
        self, cores: Processor, device: Processor, event_loops: Sequence[Threads], now: float
    ) -> None:
        self._cores, self._device, self._event_loops = cores, device, tuple(event_loops)
        self._at = now
        self._before = cores.done_s, device.done_s, [each.begun_s for each in event_loops]

    def measured(self, now: float, machine: Machine) -> Utilisation:
        """Return the utilisation since this object was made."""
        length_s = now - self._at
        cores_s, device_s, loops_s = self._before
        most = (machine.cores - machine.idle_cores) * machine.core_efficiency
        cores = (self._cores.done_s - cores_s) / length_s / most
        device = (self._device.done_s - device_s) / length_s / machine.gain if machine.accelerator else cores
        busiest = max(each.begun_s - before for each, before in zip(self._event_loops, loops_s, strict=True))
        return Utilisation(min(1.0, device), min(1.0, cores), busiest / length_s)


@dataclass(frozen=True, slots=True)
class Fairness:
    """Compares the delivered rates of equal streams that were connected, in frames per second."""

    fps: float
    streams: int
    least_fps: float
    median_fps: float
    most_fps: float
    #: Jain's index (Jain, Chiu and Hawe, 1984): 1 if all rates are equal, 1 / ``streams`` if one has it all.
    jain: float


@dataclass(slots=True)
class Report:
    """Holds the outcome of one simulation. Times are in milliseconds, unless named otherwise."""

    mix: str
    streams: int
    #: Streams that were never admitted, and all refused attempts.
    refused: int
    refusals: int
    #: Frames per second that the connected cameras captured, and that had a result.
    captured_fps: float
    delivered_fps: float
    #: Share of the captured frames without a result, and its parts by reason. Reasons ``window`` and ``rate``
    #: of the client are frames that it did not send.
    drop_share: float
    drops: dict[str, float]
    #: Ages of results, from capture to arrival at the client; None without results.
    age_p50: float | None
    age_p95: float | None
    age_p99: float | None
    fairness: tuple[Fairness, ...]
    #: Streams with a granted rate at the end, and the lowest of these rates.
    granted: int
    lowest_grant_fps: float | None
    #: How often the granted rate of a stream changed during the measurement, on average.
    grant_changes: float
    utilisation: Utilisation
    #: Mean number of frames in a batch.
    batch: float
    posts: dict[str, Any] | None
    #: Frames without an outcome, and those that the service's ledger still counts as in flight; both are 0.
    unfinished: int
    in_flight: int
    simulated_s: float
    seed: int
    #: Real seconds that the simulation took.
    real_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)


def summarise(
    scenario: Scenario,
    records: Sequence[StreamRecord],
    posts: PostRecord,
    ledger: Ledger,
    used: Utilisation,
    batches: Mapping[int, int],
) -> Report:
    """Return the report of a simulation."""
    seconds = scenario.seconds
    connected = [record for record in records if record.connected]
    captured = sum(record.captured for record in records)
    ages_ms = np.concatenate([np.asarray(record.ages_s) for record in records] or [np.empty(0)]) * 1e3
    drops: Counter[str] = Counter()
    for record in records:
        drops.update({f"not sent ({reason})": count for reason, count in record.skipped.items()})
        drops.update(record.drops)
        drops.update({f"error {code}": count for code, count in record.errors.items()})
    grants = [record.granted_fps for record in connected if record.granted_fps is not None]
    runs = sum(frames / size for size, frames in batches.items())
    cameras = scenario.cameras
    return Report(
        mix=str(scenario.mix),
        streams=len(records),
        refused=len(records) - len(connected),
        refusals=sum(record.refusals for record in records),
        captured_fps=captured / seconds,
        delivered_fps=len(ages_ms) / seconds,
        drop_share=1.0 - len(ages_ms) / captured if captured else 0.0,
        drops={reason: count / captured for reason, count in drops.most_common() if count},
        age_p50=percentile(ages_ms, 50),
        age_p95=percentile(ages_ms, 95),
        age_p99=percentile(ages_ms, 99),
        fairness=tuple(
            _fairness(connected, fps, seconds) for fps in sorted({each.fps for each in connected})
        ),
        granted=len(grants),
        lowest_grant_fps=min(grants, default=None),
        grant_changes=sum(each.grant_changes for each in connected) / max(1, len(connected)),
        utilisation=used,
        batch=sum(batches.values()) / runs if runs else 0.0,
        posts=_posts(posts, seconds) if cameras.posts_per_s else None,
        unfinished=sum(record.unfinished for record in records),
        in_flight=ledger.in_flight,
        simulated_s=cameras.ramp_s + scenario.settle_s + seconds,
        seed=scenario.seed,
    )


def percentile(values: Any, rank: float) -> float | None:
    """Return a percentile of an array, ``rank`` 0 to 100; None if the array is empty."""
    return float(np.percentile(values, rank)) if len(values) else None


def jain(rates: Sequence[float]) -> float:
    """Return Jain's fairness index; 1 for no rates, or if all are 0."""
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 1.0


def _fairness(records: Sequence[StreamRecord], fps: float, seconds: float) -> Fairness:
    rates = sorted(record.results / seconds for record in records if record.fps == fps)
    return Fairness(fps, len(rates), rates[0], float(np.median(rates)), rates[-1], jain(rates))


def _posts(posts: PostRecord, seconds: float) -> dict[str, Any]:
    served_ms = np.asarray(posts.served_s) * 1e3
    return {
        "sent_per_s": posts.sent / seconds,
        "served_per_s": len(served_ms) / seconds,
        "refused": dict(posts.refused),
        "p50": percentile(served_ms, 50),
        "p95": percentile(served_ms, 95),
    }
