"""Says what is expected on a kind of day that a reference has not seen, such as its first Sunday. Pure.

Nothing is known of such a day, but its states are mostly those of other times: a shop that is closed looks
like its nights, and one that opens later like itself an hour before. So whatever the reference knows of any
time of day is accepted then, and only what it knows of none is a change.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streamer.drift.day import Floats

#: What happens once a day, such as lamps that go on, may happen by so many hours earlier or later then.
EVENTS_WITHIN_H = 4.0
#: Columns of categories that are not judged then: how often nothing is there is a matter of the day.
UNJUDGED = ("top_class",)


def within_any_time(means: Floats, values: Floats) -> Floats:
    """Return for each block the nearest value that the reference knows of any time, (blocks, signals).

    ``means`` are its expectations, (weekdays or 1, slots, signals), and ``values`` the blocks' means.
    """
    low, high = _range(means)
    return np.asarray(np.clip(values, low, high), np.float64)


def reach_of_any_time(means: Floats, slot: np.intp) -> Floats:
    """Return how far the expectations of other times are from those of a half hour, (signals,)."""
    low, high = _range(means)
    here = means[:, slot]
    away = np.maximum(high - here, here - low)
    return np.asarray(np.where(np.isfinite(away), away, 0.0).max(axis=0), np.float64)


def greatest_of_near_times(limits: Floats, slot: np.intp) -> Floats:
    """Return the greatest finite limit of the half hours around one, (signals,); inf where there is none.

    ``limits`` are (slots, signals).
    """
    reach = int(EVENTS_WITHIN_H * len(limits) / 24)
    near = limits[(slot + np.arange(-reach, reach + 1)) % len(limits)]
    finite = np.isfinite(near)
    return np.asarray(np.where(finite.any(axis=0), np.where(finite, near, 0).max(axis=0), np.inf))


def _range(means: Floats) -> tuple[Floats, Floats]:
    known: npt.NDArray[np.bool_] = np.isfinite(means)
    some = known.any(axis=(0, 1))
    low, high = (
        np.where(known, means, np.inf).min(axis=(0, 1)),
        np.where(known, means, -np.inf).max(axis=(0, 1)),
    )
    return np.where(some, low, np.nan), np.where(some, high, np.nan)
