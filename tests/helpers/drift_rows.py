"""Generates seeded drift rows that are correlated over time like those of a real camera."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from streamer.drift.monitor import Check, DriftConfig, Monitor
from streamer.drift.reference import Reference, learn
from streamer.drift.rows import NUMERIC, Row
from tests.helpers.drift_series import INTERVAL_S, START

__all__ = ["HOSTILE", "INTERVAL_S", "LATER", "START", "World", "drifted_check", "rows"]

FACTORS = 3
#: Begin of the rows that tests compare with a reference; the rows of the reference begin at START.
LATER = START + 10 * 86_400
#: Class name of a hostile model that closes a script element if a page inserts it without escaping.
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class World:
    """Simulates a camera whose columns share slow and fast causes.

    Values have mean 0 and standard deviation 1. They are sums of Ornstein-Uhlenbeck processes with time
    constants of 10 s, 60 s and 20 min, and white noise. ``slow`` is the share of the slowest process: at
    0.35, half an hour differs from the day by more than a standard deviation. ``slower`` are the shares of
    further processes by their time constant; the quick ones have what remains.
    """

    def __init__(self, seed: int, *, slow: float = 0.1, slower: Mapping[float, float] | None = None) -> None:
        self._rng = np.random.default_rng(seed)
        slower = slower or {}
        quick = (0.9 - slow - sum(slower.values())) / 2
        self._parts = [(quick, 10.0), (quick, 60.0), (slow, 1200.0)]
        self._parts += [(share, tau_s) for tau_s, share in slower.items()]
        loads = self._rng.standard_normal((FACTORS, len(NUMERIC)))
        self._loads = loads / np.sqrt((loads**2).sum(axis=0)) * np.sqrt(0.6)
        width = FACTORS + len(NUMERIC)
        self._state = self._rng.standard_normal((len(self._parts), width))

    def values(self, count: int) -> npt.NDArray[np.float32]:
        """Return the numbers of the next rows, (count, columns); each call continues the last one."""
        total = np.sqrt(0.1) * self._rng.standard_normal((count, len(NUMERIC)))
        for place, (share, tau_s) in enumerate(self._parts):
            keep = np.exp(-INTERVAL_S / tau_s)
            kicks = self._rng.standard_normal((count, self._state.shape[1])) * np.sqrt(1 - keep**2)
            path = _decaying_sums(kicks, keep, self._state[place])
            self._state[place] = path[-1]
            own = path[:, FACTORS:] * np.sqrt(0.4)
            total += np.sqrt(share) * (path[:, :FACTORS] @ self._loads + own)
        return np.asarray(total, np.float32)


def _decaying_sums(
    kicks: npt.NDArray[np.float64], keep: float, state: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the states that begin with ``state``, each ``keep`` times the one before it plus its kick.

    ``kicks`` is (count, columns). Steps are computed in blocks, each by one product with powers of ``keep``.
    """
    block = 64
    steps = np.arange(block)
    powers = np.tril(keep ** np.maximum(steps[:, None] - steps, 0).astype(np.float64))
    path = np.empty_like(kicks)
    for begin in range(0, len(kicks), block):
        part = kicks[begin : begin + block]
        count = len(part)
        path[begin : begin + count] = powers[:count, :count] @ part
        path[begin : begin + count] += keep ** (steps[:count, None] + 1.0) * state
        state = path[begin + count - 1]
    return path


def rows(
    values: npt.NDArray[np.float32],
    begin: float = START,
    *,
    stream: str = "gate",
    model: str = "v1:ab",
    interval_s: float = INTERVAL_S,
) -> Iterator[Row]:
    """Yield a row for each line of values, one per interval; text columns are derived from the numbers."""
    top, boxes = NUMERIC.index("conf_max"), NUMERIC.index("n_boxes")
    for place, line in enumerate(values):
        label = "cat" if line[top] > 0 else "dog"
        yield Row(
            at=begin + place * interval_s,
            stream=stream,
            session=0,
            model=model,
            numbers=line,
            top_class=label,
            resolution="640x480",
            source="websocket",
            classes=((label, 1 + int(abs(line[boxes]))),),
        )


def _named(made: Iterable[Row]) -> list[Row]:
    """Return rows whose classes have hostile names."""
    return [replace(row, top_class=row.top_class + HOSTILE) for row in made]


@functools.cache
def drifted_check() -> Check:
    """Return the check of a window with unusable columns and hostile class names.

    One column is NaN in the window, and another is NaN in the reference.
    """
    known = World(1).values(3000)
    known[:, NUMERIC.index("jpeg_bpp")] = np.nan
    reference, _ = learn(_named(rows(known)), 1800, 0.001)
    monitor = Monitor(DriftConfig())
    monitor.set_reference(Reference({"gate": reference}, "", ""))
    values = World(2).values(500)
    values[:, NUMERIC.index("conf_mean")] = np.nan
    return [found for row in _named(rows(values, LATER)) for found in monitor.add(row)][-1]
