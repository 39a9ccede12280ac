"""How far a window lies from its reference, column by column: the metrics of Evidently, in numpy. Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

WASSERSTEIN, JENSEN_SHANNON = "wasserstein", "jensenshannon"
#: A constant column has no spread to measure by.
LEAST_DEVIATION = 1e-3
#: Share of a window's rows that may be freaks. One picture with a lamp in the lens lies in three windows, and
#: in a column that hardly varies its distance is many thresholds: a quiet day of a simulated camera had an
#: episode by it.
FREAK_SHARE = 0.025


def wasserstein(reference: Floats, deviation: float, values: Floats) -> float:
    """Return the first Wasserstein distance in standard deviations of the reference.

    Evidently's `wasserstein`, W1 / max(std, 0.001). ``reference`` is sorted; both hold finite numbers only.
    W1 is the mean distance of equal quantiles, taken at the middle of each of the values' steps.
    """
    return float(_gaps(reference, values).mean() / max(deviation, LEAST_DEVIATION))


def wasserstein_without_freaks(reference: Floats, deviation: float, values: Floats) -> float:
    """Return the same without the most distant ``FREAK_SHARE`` of the values (rounded up).

    Where the whole window has moved it is all but equal; where a few rows are odd it is what the rest says.
    """
    gaps = np.sort(_gaps(reference, values))
    kept = gaps[: max(1, len(gaps) - math.ceil(FREAK_SHARE * len(gaps)))]
    return float(kept.mean() / max(deviation, LEAST_DEVIATION))


def _gaps(reference: Floats, values: Floats) -> npt.NDArray[np.float64]:
    count = len(values)
    at = ((np.arange(count) + 0.5) / count * len(reference)).astype(np.intp)
    return np.asarray(np.abs(np.sort(values).astype(np.float64) - reference[at]), np.float64)


def jensen_shannon(first: Floats, second: Floats) -> float:
    """Return the Jensen-Shannon distance of two counts of the same words, in [0, 0.833].

    The root of the divergence in nats, as scipy and Evidently have it. 1-D arrays of one length; NaN where
    one of them is empty.
    """
    if not first.sum() or not second.sum():
        return float("nan")
    p = first.astype(np.float64) / first.sum()
    q = second.astype(np.float64) / second.sum()
    middle = (p + q) / 2
    return float(np.sqrt(max(0.0, (_divergence(p, middle) + _divergence(q, middle)) / 2)))


def _divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())
