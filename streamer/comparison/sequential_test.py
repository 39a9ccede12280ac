"""Tests a ratio of sums over time so that the test may be looked at after every window. Pure.

A quantity is a ratio ``sum(a) / sum(b)`` over windows of time, in which all streams are added up: whatever
hits them together, such as weather, counts once. For a ratio ``r`` in question, each unit of time has the
value ``x = a - r b``, whose mean is 0 if ``r`` is right. The evidence against ``r`` is the mixture
sequential probability ratio with sums of squares in place of the variance,

    sqrt(rho / (rho + V)) exp(S^2 / (2 (rho + V))),    S = sum(x),  V = sum(x^2),

a mixture of exp(l S - l^2 V / 2) over l ~ N(0, 1 / rho) (de la Pena, Lai and Shao, Self-Normalized Processes,
2009, chapter 11; Robbins 1970). If the units are independent and the sign of each x is fair given its size,
this is a martingale of mean 1, whatever the sizes are, so by Ville's inequality it ever exceeds 1 / alpha
with probability alpha at most. No normal distribution and no known variance are assumed.

Units of video are not independent. Three things make up for it, none of which can make the evidence larger:

- Units grow with the data: windows are joined, in powers of two, as long as `LEAST_UNITS` units remain. The
  lengths share alpha.
- V is inflated by the autocorrelation that the units still have (`_inflation`), and, where streams are
  short, to the variance between streams.
- Skewed values weaken the evidence as in Johnson's t test (1978).

`tests/unit/test_verdict_simulation.py` measures what that is worth, and where it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: The least number of units for a decision.
LEAST_UNITS = 30
#: The mixture is widest where V is this many times smaller than over the first `LEAST_UNITS` units.
_SPREAD = 8.0
#: Variances of longer stretches count from this number of stretches on.
_LEAST_STRETCHES = 6
#: The autocorrelation is taken for this many of its standard errors larger, and for no more than the limit.
_CAUTION, _MOST_CORRELATION = 0.5, 0.97
#: Power of the inflation that also reduces the evidence of the mean itself. With 0 a slow wave passes for
#: a lasting difference, with 1 correlated windows never show one.
_MEAN_POWER = 0.75
#: The streams' variance counts from this number of streams on.
_LEAST_STREAMS = 6
#: Ratios in question lie on a grid from the estimate to this many standard errors on each side.
_NEAREST, _REACH, _STEPS = 0.05, 300.0, 90
#: A standard error of 0 comes from equal results, and is taken for this one.
_LEAST_ERROR = 1e-6
RESAMPLES = 500
LEVEL = 0.95
_SEED = 20_260_101


@dataclass(frozen=True, slots=True)
class Series:
    """Holds the sums of windows, (n,) each, in the order of time, and of short streams, (k,) each.

    ``stream_a`` and ``stream_b`` are empty where most frames are of streams that last as long as the
    observation: the comparison is then about these streams, and not about a choice from many.
    """

    a: Floats
    b: Floats
    stream_a: Floats
    stream_b: Floats

    @property
    def estimate(self) -> float:
        """The ratio of the sums; NaN without a denominator."""
        total = float(self.b.sum())
        return float(self.a.sum()) / total if total > 0 else math.nan

    @property
    def doublings(self) -> int:
        """How often the length of the units has been doubled."""
        return max(0, int(math.log2(max(1, len(self.a) // LEAST_UNITS))))

    @property
    def units(self) -> int:
        """Number of units; a decision needs `LEAST_UNITS`."""
        return len(self.a) >> self.doublings

    def values(self, ratios: Floats) -> Floats:
        """Return the values of the units for each ratio in question, (m, units)."""
        length, count = 1 << self.doublings, self.units
        a, b = (each[: count * length].reshape(count, length).sum(axis=1) for each in (self.a, self.b))
        values: Floats = a - ratios[:, None] * b
        return values

    def evidence(self, ratios: Floats) -> tuple[Floats, Floats]:
        """Return the logarithm of the evidence against each ratio, and the sign of its sum, (m,) each."""
        estimate = self.estimate
        residuals = self.values(np.array([estimate if math.isfinite(estimate) else 0.0]))[0]
        return _log_evidence(self.values(ratios), residuals, self.stream_variance())

    def stream_variance(self) -> float:
        """Return the variance of the sum of values by the spread between short streams; 0 if unknown."""
        count = len(self.stream_a)
        if count < _LEAST_STREAMS:
            return 0.0
        values = self.stream_a - self.stream_b * (self.stream_a.sum() / max(self.stream_b.sum(), 1e-12))
        return float(np.square(values).sum()) * count / (count - 1)


def _log_evidence(values: Floats, residuals: Floats, stream_variance: float) -> tuple[Floats, Floats]:
    """Return the logarithm of the evidence against a mean of 0, and the sign of the sum, (m,) each.

    ``values`` are those of the units, (m, n) with n of at least `LEAST_UNITS`; ``residuals`` (n,) are those
    at the estimate, which tell how much chance varies.
    """
    count = len(residuals)
    sums, squares = values.sum(axis=1), np.square(values).sum(axis=1)
    spread = float(np.square(residuals).sum())
    inflation = _inflation(residuals)
    mean_part = np.square(sums) / count
    variance = max(spread * inflation, stream_variance) + mean_part * inflation**_MEAN_POWER
    skewness = float(np.mean(residuals**3)) / (spread / count) ** 1.5 if spread > 0 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(sums) / np.sqrt(variance)
        # A sum against the direction of the long tail is less surprising than it looks.
        shift = abs(skewness) * (1 + 2 * ratio**2) / (6 * math.sqrt(count))
        # The correction is made for small ratios, and would turn large ones around.
        ratio = np.where(skewness * sums < 0, np.maximum(ratio / 2, ratio - shift), ratio)
        # The spread of the mixture may depend on sizes alone: the signs are fair given all of them.
        rho = np.square(values[:, :LEAST_UNITS]).sum(axis=1) / squares / _SPREAD
        evidence = 0.5 * np.log(rho / (rho + 1)) + ratio**2 / (2 * (rho + 1))
    return np.where(np.isfinite(evidence), evidence, -np.inf), np.sign(sums)


def _inflation(residuals: Floats) -> float:
    """Return by how much the variance of a mean exceeds that of independent units, at least 1.

    The larger of two estimates: of an autoregressive process with the correlation of neighbours, and from the
    variance of longer stretches.
    """
    count, spread = len(residuals), float(np.square(residuals).sum())
    if spread <= 0:
        return 1.0
    found = float((residuals[1:] * residuals[:-1]).sum()) / spread
    # Neighbours in short series look less correlated than they are (Kendall 1954).
    found += (1 + 4 * max(found, 0)) / count + _CAUTION / math.sqrt(count)
    found = min(max(found, 0), _MOST_CORRELATION)
    largest = (1 + found) / (1 - found)
    length = 2
    while count // length >= _LEAST_STRETCHES:
        stretches = count // length
        sums = residuals[count - stretches * length :].reshape(stretches, length).sum(axis=1)
        largest = max(
            largest, float(np.square(sums).sum()) / (stretches - 1) / length / (spread / (count - 1))
        )
        length *= 2
    return largest


def log_threshold(alpha: float, doublings: int) -> float:
    """Return the logarithm of the evidence from which a ratio is rejected.

    The lengths of units share ``alpha`` as 1/2, 1/6, 1/12, ..., whose sum is 1.
    """
    return math.log((doublings + 1) * (doublings + 2) / alpha)


@dataclass(frozen=True, slots=True)
class ConfidenceSequence:
    """The ratios that are not rejected: an interval that may be looked at at any time. None: no bound yet."""

    low: float | None
    high: float | None

    def excludes(self, margin: float) -> bool:
        """Return whether no ratio of ``-margin`` to ``margin`` is left."""
        return (self.low is not None and self.low > margin) or (self.high is not None and self.high < -margin)

    def within(self, margin: float) -> bool:
        """Return whether only ratios between ``-margin`` and ``margin`` are left."""
        return self.low is not None and self.high is not None and -margin < self.low and self.high < margin


def confidence_sequence(series: Series, alpha: float) -> ConfidenceSequence:
    """Return the ratios that are not rejected at level ``alpha``; no bounds if there are too few units."""
    estimate = series.estimate
    if series.units < LEAST_UNITS or not math.isfinite(estimate):
        return ConfidenceSequence(None, None)
    values = series.values(np.array([estimate]))
    error = max(_LEAST_ERROR, math.sqrt(float(np.square(values).sum())) / float(series.b.sum()))
    steps = error * np.concatenate([[0.0], np.geomspace(_NEAREST, _REACH, _STEPS)])
    threshold = log_threshold(alpha, series.doublings)
    bounds: list[float | None] = []
    for side in (-1, 1):
        ratios = estimate + side * steps
        evidence, signs = series.evidence(ratios)
        kept = np.flatnonzero((evidence < threshold) | (signs != -side))
        # Going outwards, all ratios from the bound on are rejected.
        after = int(kept[-1]) + 1 if len(kept) else 0
        bounds.append(float(ratios[after]) if after < len(ratios) else None)
    return ConfidenceSequence(*bounds)


def bootstrap_intervals(a: Floats, b: Floats) -> list[tuple[float, float] | None]:
    """Return the 95 % interval of each ratio over resamples of blocks; None where there is none.

    ``a`` and ``b`` are sums of blocks by quantity, (blocks, q). The intervals hold for one look alone: they
    are too narrow for whoever waits for a verdict.
    """
    count = len(a)
    if count < 2:
        return [None] * a.shape[1]
    weights = np.random.default_rng(_SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    above, below = weights @ a, weights @ b
    found: list[tuple[float, float] | None] = []
    for column in range(a.shape[1]):
        known = below[:, column] > 0
        if not known.any():
            found.append(None)
            continue
        ratios = above[known, column] / below[known, column]
        low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        found.append((float(low), float(high)))
    return found
