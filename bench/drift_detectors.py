"""Implements detectors of drift from the literature, for comparison with the service's own monitor.

All of them see the same rows, as means of ten minutes: the numeric columns and the share of each class,
standardised by the reference, if wanted by the hour of the day. A detector alarms when one of its statistics
does; an episode lasts until half an hour passes without an alarm. Each class names the source of its formula;
the code is our own.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np

from streamer.drift.rows import NUMERIC
from tests.helpers.drift_series import Floats, Series

STEP_S = 600.0
#: Steps without an alarm that end an episode.
CLEAR_STEPS = 3
#: A step needs this many rows.
MIN_ROWS = 30
#: Days from which the hour of the day can be taken into account.
SEASON_STEPS = 3 * 144 - 1
#: Standardised values are limited to this, so that one column that hardly varies does not decide alone.
LIMIT = 8.0


def step_means(series: Series) -> tuple[Floats, Floats]:
    """Return the ends of all steps that have enough rows, (s,), and the means of their columns, (s, c)."""
    step = np.floor(series.at / STEP_S).astype(np.int64)
    found, first, count = np.unique(step, return_index=True, return_counts=True)
    shares = series.counts / np.maximum(series.counts.sum(axis=1, keepdims=True), 1)
    shares = np.where(series.counts.sum(axis=1, keepdims=True) > 0, shares, np.nan)
    columns = np.column_stack([series.numbers, shares]).astype(np.float64)
    known = np.isfinite(columns)
    sums = np.add.reduceat(np.where(known, columns, 0), first) if len(first) else columns
    counts = np.add.reduceat(known.astype(np.int64), first) if len(first) else known
    means = np.where(counts >= 5, sums / np.maximum(counts, 1), np.nan)
    enough = count >= MIN_ROWS
    return np.asarray((found[enough] + 1) * STEP_S, np.float64), np.asarray(means[enough], np.float64)


class StepDetector:
    """Standardises the means of steps by the reference, and keeps episodes; subclasses find changes."""

    #: Settings to choose from, by name of the argument.
    grid: ClassVar[dict[str, tuple[float, ...]]] = {}

    def __init__(self, reference: Series, *, by_hour: float = 0.0) -> None:
        ends, means = step_means(reference)
        self._season = bool(by_hour) and len(ends) >= SEASON_STEPS
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # columns without any value
            self._level = np.nanmedian(means, axis=0)
            self._hours = np.tile(self._level, (24, 1))
            if self._season:
                hours = _hours(ends)
                for hour in range(24):
                    around = np.isin(hours, [(hour - 1) % 24, hour, (hour + 1) % 24])
                    self._hours[hour] = np.nanmedian(means[around], axis=0)
            rest = means - self._hours[_hours(ends)]
            self._scale = 1.4826 * np.nanmedian(np.abs(rest - np.nanmedian(rest, axis=0)), axis=0)
            self._scale = np.maximum(self._scale, np.nanstd(rest, axis=0) / 3)
        self._scale = np.maximum(self._scale, 0.01 * np.abs(self._level) + 1e-3)
        self._waiting: list[Series] = []
        self._quiet = CLEAR_STEPS
        self.learn(self._standardise(ends, means))

    @property
    def drifting(self) -> bool:
        """Whether an episode is on."""
        return self._quiet < CLEAR_STEPS

    def feed(self, series: Series) -> Iterator[float]:
        """Take further rows; yield the time of each beginning of an episode."""
        self._waiting.append(series)
        whole = _joined(self._waiting)
        if not len(whole):
            return
        last = math.floor(whole.at[-1] / STEP_S) * STEP_S
        self._waiting = [whole.between(last, math.inf)]
        ends, means = step_means(whole.between(0, last))
        for end, values in zip(ends.tolist(), self._standardise(ends, means), strict=True):
            alarm = self.step(values)
            begins = alarm and not self.drifting
            self._quiet = 0 if alarm else self._quiet + 1
            if begins:
                yield end

    def copy(self) -> Self:
        """Return a detector in the same state."""
        return copy.deepcopy(self)

    def _standardise(self, ends: Floats, means: Floats) -> Floats:
        values = (means - self._hours[_hours(ends)]) / self._scale
        return np.asarray(np.clip(np.nan_to_num(values), -LIMIT, LIMIT), np.float64)

    def learn(self, values: Floats) -> None:
        """Learn from the standardised steps of the reference, (s, c)."""

    def step(self, values: Floats) -> bool:
        """Take one step, (c,); return whether it alarms."""
        raise NotImplementedError


def _hours(ends: Floats) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return ((ends - STEP_S / 2) % 86_400 // 3600).astype(np.int64)


def _joined(parts: list[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    return Series(
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.top for part in parts]),
        np.concatenate([part.counts for part in parts]),
        parts[-1].labels,
    )


class Cusum(StepDetector):
    """Cumulative sums in both directions (Page, Biometrika 1954): alarm if one exceeds ``level``.

    S = max(0, S + x - slack), and the same with -x; a sum that alarms starts again.
    """

    grid: ClassVar = {
        "slack": (0.5, 1.0, 2.0),
        "level": (10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
        "by_hour": (0, 1),
    }

    def __init__(self, reference: Series, *, slack: float, level: float, by_hour: float = 0) -> None:
        self._slack, self._level_h = slack, level
        self._sums = np.zeros((2, len(NUMERIC) + reference.counts.shape[1]))
        super().__init__(reference, by_hour=by_hour)

    def step(self, values: Floats) -> bool:
        """Add the step to the sums."""
        self._sums = np.maximum(0, self._sums + np.stack([values, -values]) - self._slack)
        over = self._sums > self._level_h
        self._sums[over] = 0
        return bool(over.any())


class PageHinkley(StepDetector):
    """The Page-Hinkley test (Hinkley, Biometrika 1971) in both directions.

    m = sum of (x - running mean - tolerance); alarm if m exceeds its minimum by ``level``, then start again.
    The running mean begins with that of the reference.
    """

    grid: ClassVar = {
        "tolerance": (0.5, 1.0, 2.0),
        "level": (10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
        "by_hour": (0, 1),
    }

    def __init__(self, reference: Series, *, tolerance: float, level: float, by_hour: float = 0) -> None:
        self._tolerance, self._level_h = tolerance, level
        super().__init__(reference, by_hour=by_hour)

    def learn(self, values: Floats) -> None:
        """Begin with the mean of the reference."""
        self._mean, self._count = values.mean(axis=0), np.full(values.shape[1], float(len(values)))
        self._sums = np.zeros((2, values.shape[1]))
        self._least = np.zeros_like(self._sums)

    def step(self, values: Floats) -> bool:
        """Add the step to sums and mean."""
        self._count += 1
        self._mean = self._mean + (values - self._mean) / self._count
        rest = values - self._mean
        self._sums += np.stack([rest, -rest]) - self._tolerance
        self._least = np.minimum(self._least, self._sums)
        over = self._sums - self._least > self._level_h
        restart = over.any(axis=0)
        self._sums[:, restart] = self._least[:, restart] = 0
        self._mean[restart], self._count[restart] = values[restart], 1
        return bool(restart.any())


class Adwin(StepDetector):
    """ADWIN (Bifet and Gavalda, SDM 2007): a window that shrinks when two parts of it differ.

    Parts of n0 and n1 steps differ if |difference of means| > sqrt(2/m var ln(2/d)) + 2/(3m) ln(2/d), where
    1/m = 1/n0 + 1/n1 and d = ``confidence`` / ln(n). The window is kept whole, not in exponential buckets. It
    begins with the reference.
    """

    grid: ClassVar = {"confidence": (1e-3, 1e-12, 1e-24, 1e-48), "by_hour": (0, 1)}
    #: Longest window in steps: a week.
    longest = 1008
    #: Shortest part in steps.
    least = 3

    def __init__(self, reference: Series, *, confidence: float, by_hour: float = 0) -> None:
        self._confidence = confidence
        super().__init__(reference, by_hour=by_hour)

    def learn(self, values: Floats) -> None:
        """Begin with the reference as the window."""
        self._window = values[-self.longest :]
        #: First step of each column's window.
        self._first = np.zeros(values.shape[1], np.int64)

    def step(self, values: Floats) -> bool:
        """Append the step, and drop the older part of each column that differs from the newer one."""
        dropped = max(0, len(self._window) + 1 - self.longest)
        self._window = np.vstack([self._window[dropped:], values])
        self._first = np.maximum(self._first - dropped, 0)
        n = len(self._window)
        place = np.arange(n)[:, None]
        inside = place >= self._first
        sums = np.cumsum(np.where(inside, self._window, 0), axis=0)
        squares = np.cumsum(np.where(inside, self._window**2, 0), axis=0)[-1]
        old = np.maximum(place + 1 - self._first, 0)
        size = n - self._first
        new = size - old
        total = sums[-1]
        variance = np.maximum(squares / size - (total / size) ** 2, 1e-4)
        valid = (old >= self.least) & (new >= self.least)
        old, new = np.maximum(old, 1), np.maximum(new, 1)
        gap = np.abs(sums / old - (total - sums) / new)
        log = np.log(2 * np.log(np.maximum(size, 3)) / self._confidence)
        inverse = 1 / old + 1 / new
        bound = np.sqrt(2 * inverse * variance * log) + 2 / 3 * inverse * log
        cut = valid & (gap > bound)
        changed = cut.any(axis=0)
        last = n - 1 - np.argmax(cut[::-1], axis=0)
        self._first = np.where(changed, last + 1, self._first)
        return bool(changed.any())


class OnlineMmd(StepDetector):
    """Maximum mean discrepancy (Gretton et al., JMLR 2012) of a sliding window, by expected run time.

    The kernel is Gaussian with the median distance of the reference as bandwidth. As in online tests by
    expected run time (Cobb, Van Looveren and Klaise, AISTATS 2022), the threshold is the quantile of
    simulated windows that is exceeded once in ``run_time`` steps, times ``margin``. With ``blocks`` simulated
    windows are contiguous steps of the reference, otherwise independent draws, as in the publication.
    """

    grid: ClassVar = {
        "window": (3, 6),
        "run_time": (14_400.0,),
        "blocks": (0, 1),
        "margin": (1.0, 1.3),
        "by_hour": (0, 1),
    }

    def __init__(
        self,
        reference: Series,
        *,
        window: float,
        run_time: float,
        blocks: float,
        margin: float = 1.0,
        by_hour: float = 0,
    ) -> None:
        self._size, self._run_time, self._blocks = int(window), run_time, bool(blocks)
        self._margin = margin
        super().__init__(reference, by_hour=by_hour)

    def learn(self, values: Floats) -> None:
        """Compute bandwidth, the reference's own similarity, and the threshold."""
        rng = np.random.default_rng(0)
        self._known = values[rng.permutation(len(values))[:400]]
        distances = _square_distances(self._known, self._known)
        self._bandwidth = float(np.median(distances[distances > 0]))
        self._own = float(np.exp(-distances / self._bandwidth).mean())
        size = self._size
        if self._blocks:
            starts = np.arange(len(values) - size + 1)
            picks = starts[:, None] + np.arange(size)
        else:
            picks = rng.integers(0, len(values), (2000, size))
        statistics = np.sort([self._statistic(values[pick]) for pick in picks])
        # A quantile beyond all simulated windows is the greatest of them.
        rank = min(len(statistics) - 1, math.ceil((1 - 1 / self._run_time) * len(statistics)))
        self._threshold = self._margin * float(statistics[rank])
        self._recent = values[:0]

    def step(self, values: Floats) -> bool:
        """Compare the window that ends with this step."""
        self._recent = np.vstack([self._recent, values])[-self._size :]
        return len(self._recent) == self._size and self._statistic(self._recent) > self._threshold

    def _statistic(self, window: Floats) -> float:
        within = np.exp(-_square_distances(window, window) / self._bandwidth).mean()
        across = np.exp(-_square_distances(window, self._known) / self._bandwidth).mean()
        return float(self._own + within - 2 * across)


def _square_distances(first: Floats, second: Floats) -> Floats:
    products = first @ second.T
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    return np.asarray(np.maximum(squares - 2 * products, 0), np.float64)


DETECTORS: dict[str, type[StepDetector]] = {
    "CUSUM": Cusum,
    "Page-Hinkley": PageHinkley,
    "ADWIN": Adwin,
    "online MMD": OnlineMmd,
}
