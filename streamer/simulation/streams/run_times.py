"""Reads the run times of a model, by batch size, from text or from a report of ``streamer models check``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from streamer.simulation.errors import BadScenario

#: Largest batch that the service forms (`BATCH_MAX`).
MAX_BATCH = 64
_EXPECTED = "`SIZE:MS,SIZE:MS`, such as 1:8,4:20,8:36, or a file from `streamer models check FILE --json`"


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Holds the milliseconds of a run of ``batch`` frames while ``threads`` threads run at the same time."""

    threads: int
    batch: int
    ms: float


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Holds the milliseconds of one run for each batch size that the service runs."""

    cost_ms: Mapping[int, float]
    #: Milliseconds of one frame that has all cores of a CPU; None if that was not measured.
    all_cores_ms: float | None = None
    #: A run beside those of other threads; None if that was not measured.
    at_once: AtOnce | None = None
    #: Execution provider, such as ``cpu`` or ``cuda``; None if the source does not say.
    provider: str | None = None
    #: Cores of the machine on which the times were measured; None if the source does not say.
    cores: int | None = None
    #: Milliseconds until a thread or process that sleeps gets a message; 0 if that was not measured.
    wake_up_ms: float = 0.0

    @property
    def cost_s(self) -> dict[int, float]:
        """Seconds of one run for each batch size."""
        return {size: cost / 1e3 for size, cost in self.cost_ms.items()}

    @property
    def core_efficiency(self) -> float:
        """Speed of a core while all cores run the model, where a core alone has speed 1."""
        return min(1.0, 1.0 / self._slowdown)

    @property
    def gain(self) -> float:
        """Speed of an accelerator with several threads, where one thread alone has speed 1."""
        return 1.0 if self.at_once is None else max(1.0, self.at_once.threads / self._slowdown)

    @property
    def _slowdown(self) -> float:
        """How many times as long a run takes beside others."""
        at_once = self.at_once
        alone_ms = None if at_once is None else self.cost_ms.get(at_once.batch)
        return 1.0 if at_once is None or alone_ms is None else at_once.ms / alone_ms


def read_run_times(source: str, batch_max: int | None = None) -> RunTimes:
    """Return the run times that ``source`` states or, if it names a file, that the file contains.

    Batch sizes are the powers of two up to ``batch_max``, which stands for the setting of that name and is
    the largest measured size if it is None. Raises BadScenario if the times are incomplete or contradictory.
    """
    path = Path(source)
    if ":" not in source or path.is_file():
        return _from_report(path, batch_max)
    measured: dict[int, float] = {}
    for pair in source.split(","):
        size, colon, cost = pair.partition(":")
        if not colon:
            raise BadScenario(f"run times: expected {_EXPECTED}; found {pair.strip()!r}")
        number = _number(size, pair)
        if number in measured:
            raise BadScenario(f"run times: the batch of {number} has two times; give one")
        measured[number] = _milliseconds(cost, pair)
    return RunTimes(complete(measured, batch_max))


def complete(measured: Mapping[int, float], batch_max: int | None = None) -> dict[int, float]:
    """Return the milliseconds of the powers of two from 1 to ``batch_max``.

    Sizes between two measured ones are interpolated linearly; nothing is assumed beyond the largest. Raises
    BadScenario.
    """
    sizes = sorted(measured)
    if sizes[0] != 1:
        raise BadScenario(
            f"run times: the smallest batch is {sizes[0]}, and nothing is assumed below it; add the time of "
            "one frame (1:MS)"
        )
    for size, larger in pairwise(sizes):
        if measured[larger] < measured[size]:
            raise BadScenario(
                f"run times: a run of {larger} frames takes {measured[larger]:g} ms, less than one of {size} "
                f"({measured[size]:g} ms); measure again or leave one of them out"
            )
    largest = batch_max or 1 << (sizes[-1].bit_length() - 1)
    last = 1 << (largest.bit_length() - 1)
    if last > sizes[-1]:
        raise BadScenario(
            f"run times: the largest measured batch is {sizes[-1]}, and nothing is assumed beyond it; "
            f"measure a batch of {last} or allow at most {sizes[-1]} (--batch-max)"
        )
    return {1 << power: _between(measured, 1 << power) for power in range(last.bit_length())}


def _between(measured: Mapping[int, float], size: int) -> float:
    if size in measured:
        return measured[size]
    low = max(each for each in measured if each < size)
    high = min(each for each in measured if each > size)
    return measured[low] + (measured[high] - measured[low]) * (size - low) / (high - low)


def _number(text: str, pair: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= MAX_BATCH:
        raise BadScenario(
            f"run times: expected a batch size from 1 to {MAX_BATCH} before the colon; found {pair.strip()!r}"
        )
    return number


def _milliseconds(value: object, where: object) -> float:
    cost = math.nan
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            cost = float(value)
        except ValueError:
            cost = math.nan
    if not 0 < cost < 1e6:
        raise BadScenario(f"run times: expected milliseconds above 0 and below 1000000; found {where!r}")
    return cost


def _from_report(path: Path, batch_max: int | None) -> RunTimes:
    try:
        report = json.loads(path.read_bytes())
    except OSError as error:
        raise BadScenario(
            f"run times: expected {_EXPECTED}; {path} cannot be read: {error.strerror}"
        ) from error
    except ValueError as error:
        raise BadScenario(f"run times: {path} is not JSON; expected {_EXPECTED}") from error
    rows = report.get("timings") if isinstance(report, dict) else None
    if not isinstance(rows, list) or not rows:
        raise BadScenario(
            f"run times: {path} has no times; make it with `streamer models check FILE --json` and without "
            "--no-timing"
        )
    measured: dict[int, float] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("batch"), int):
            raise BadScenario(f"run times: {path} has an entry without a batch size: {row!r}")
        measured[row["batch"]] = _milliseconds(row.get("one_core_ms"), row)
    fixed = report.get("batch")
    if isinstance(fixed, int):
        measured = {fixed: measured[fixed]} if fixed in measured else measured
    return RunTimes(
        measured if isinstance(fixed, int) else complete(_rising(measured), batch_max),
        all_cores_ms=_optional(rows[0].get("all_cores_ms"), path),
        provider=report.get("device") if isinstance(report.get("device"), str) else None,
        cores=report.get("cores") if isinstance(report.get("cores"), int) else None,
        at_once=_at_once(report.get("at_once"), path),
        wake_up_ms=_wake_up(report.get("wake_up_ms"), path),
    )


def _rising(measured: Mapping[int, float]) -> dict[int, float]:
    """Return measured times without falls, which are chance: a larger batch does more of the same work."""
    found: dict[int, float] = {}
    for size in sorted(measured):
        found[size] = max(measured[size], *found.values()) if found else measured[size]
    return found


def _optional(value: object, path: Path) -> float | None:
    return None if value is None else _milliseconds(value, f"{value} in {path}")


def _wake_up(value: object, path: Path) -> float:
    """Return the time of a wake-up, which may be 0; 0 if the report, of an earlier version, has none."""
    return 0.0 if value in (None, 0) else _milliseconds(value, f"`wake_up_ms` of {path}")


def _at_once(found: Any, path: Path) -> AtOnce | None:
    """Return the time of a run beside others; None if the report has none."""
    if found is None:
        return None
    if not isinstance(found, dict) or not all(_is_count(found.get(name)) for name in ("threads", "batch")):
        raise BadScenario(f"run times: expected numbers of threads and frames in `at_once` of {path}")
    return AtOnce(found["threads"], found["batch"], _milliseconds(found.get("ms"), f"`at_once` of {path}"))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value > 0
