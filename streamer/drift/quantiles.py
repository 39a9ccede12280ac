"""Computes quantiles of Student's t and of Fisher's F, which thresholds from few observations need. Pure.

Both follow from the regularised incomplete beta function, evaluated by its continued fraction (modified
Lentz's method; Press et al., Numerical Recipes, 6.4) and inverted by bisection.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

_TINY = 1e-300
_STEPS = 200


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b) for a, b > 0 and x in [0, 1]."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _nonzero(1 + factor * d)
            c = _nonzero(1 + factor / c)
            value *= c * d
        if abs(c * d - 1) < 1e-10:
            break
    return math.exp(front) * value / a


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


@functools.lru_cache(maxsize=4096)
def student_t(p: float, df: float) -> float:
    """Return the value that |t| exceeds with probability ``p`` at ``df`` degrees of freedom, at most 1000."""
    return _bisect(lambda t: incomplete_beta(df / 2, 0.5, df / (df + t * t)), p)


@functools.lru_cache(maxsize=4096)
def fisher_f(p: float, first: float, second: float) -> float:
    """Return the value that F exceeds with probability ``p`` at these degrees of freedom, at most 1000."""
    return _bisect(lambda f: incomplete_beta(second / 2, first / 2, second / (second + first * f)), p)


def _bisect(tail: Callable[[float], float], p: float) -> float:
    low, high = 0.0, 1000.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) > p else (low, middle)
    return high
