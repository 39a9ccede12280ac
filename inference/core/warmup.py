"""Times the runs of a warm-up, and saves the measurements.

So the next process after a crash need not measure again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("inference.warmup")

#: A larger batch size must serve at least this many times the items per second of the next smaller one. On a
#: CPU batching gains 0 to 5 %, which is not worth the latency of a batch (docs/performance.md).
WORTHWHILE_GAIN = 1.08
#: Each batch size is timed for this number of runs or these seconds, whichever ends first.
_TIMED_RUNS, _TIMED_S = 7, 0.3


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Holds the measurements of one model on one device."""

    #: Maps each batch size to the seconds of one run.
    cost_s: dict[int, float]
    #: Whether a session that runs on all cores is worth its memory.
    all_cores_session: bool
    #: Whether single frames use that session at first.
    all_cores: bool = False


def run_times_s(run: Callable[[], None]) -> list[float]:
    """Return the durations of several runs, without the first unless that takes all of the time."""
    times: list[float] = []
    while len(times) <= _TIMED_RUNS and sum(times) < _TIMED_S:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return times[1:] or times


def worthwhile_buckets(cost_s: Mapping[int, float]) -> tuple[int, ...]:
    """Return the batch sizes worth forming, given the seconds per run of each; always the smallest."""
    kept: list[int] = []
    best = 0.0
    for bucket in sorted(cost_s):
        rate = bucket / cost_s[bucket]
        if not kept or rate >= best * WORTHWHILE_GAIN:
            kept.append(bucket)
            best = rate
    return tuple(kept)


def load_warm_up(directory: str, sha256: str, provider: str) -> WarmUp | None:
    """Return the measurements of an earlier process of this replica on the same device, or None."""
    if not directory:
        return None
    try:
        data = json.loads(_path(directory, sha256, provider).read_text())
        return WarmUp(
            {int(bucket): float(cost) for bucket, cost in data["cost_s"].items()},
            bool(data["all_cores_session"]),
            bool(data["all_cores"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save_warm_up(directory: str, sha256: str, provider: str, measured: WarmUp) -> None:
    """Save measurements for the next process. The supervisor removes the directory when it ends.

    When they cannot be written, as on a full disk, the next process measures again.
    """
    if not directory:
        return
    path = _path(directory, sha256, provider)
    document = {
        "cost_s": measured.cost_s,
        "all_cores_session": measured.all_cores_session,
        "all_cores": measured.all_cores,
    }
    try:
        path.write_text(json.dumps(document))
    except OSError as error:
        log.warning("the measurements of the warm-up cannot be saved for a restart: %s", error)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # the file may be incomplete


def _path(directory: str, sha256: str, provider: str) -> Path:
    return Path(directory) / f"warm-up-{sha256[:16]}-{provider}.json"
