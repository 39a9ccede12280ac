"""Draws worlds: what happens in front of a simulated camera over days.

A world says how light, texture, colours and traffic change over time, and `drift_scene` makes rows of it. All
numbers are drawn from a seed, those of the camera as well as those of the days. Worlds know nothing of the
monitor that is tested with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.helpers.drift_scene import DWELL_S, LABELS, Objects, Scene
from tests.helpers.drift_series import DAY_S, HOUR_S, INTERVAL_S, START, Floats

#: Days before the time at which a simulated operator makes the reference. A reference of any length is taken
#: from the end of them, so that all lengths are compared on the same days after it.
REFERENCE_DAYS = 7

#: Standard deviations of the parts of each cause by their time constants. Seconds to 20 minutes …
QUICK = {
    "light": {10: 0.06, 60: 0.08, 1200: 0.18},
    "detail": {10: 0.03, 60: 0.03, 1200: 0.06},
    "contrast": {10: 0.02, 60: 0.02, 1200: 0.05},
    "chroma": {10: 0.03, 60: 0.03, 1200: 0.08},
    "traffic": {60: 0.2, 1200: 0.5},
}
#: … and what the slow world has besides.
SLOW = {
    "light": {5400: 0.25, 10_800: 0.3},
    "detail": {5400: 0.08, 10_800: 0.1},
    "contrast": {5400: 0.06, 10_800: 0.08},
    "chroma": {5400: 0.1, 10_800: 0.1},
    "traffic": {5400: 0.4, 10_800: 0.4},
}


@dataclass(slots=True)
class Causes:
    """Holds the causes of n rows while a world composes them; arrays (n,), all 0 on an ordinary day."""

    light: Floats
    detail: Floats
    contrast: Floats
    chroma: Floats
    #: Logarithm of the factor of the number of objects.
    traffic: Floats
    infrared: npt.NDArray[np.bool_]
    #: Rows that exist.
    present: npt.NDArray[np.bool_]
    #: Factors of the classes of the objects, (n, labels).
    classes: Floats

    @classmethod
    def ordinary(cls, n: int) -> Causes:
        """Return the causes of an ordinary day without any change."""
        zeros = np.zeros((5, n))
        return cls(
            zeros[0],
            zeros[1],
            zeros[2],
            zeros[3],
            zeros[4],
            np.zeros(n, np.bool_),
            np.ones(n, np.bool_),
            np.ones((n, len(LABELS))),
        )

    def add(self, parts: dict[str, Floats]) -> None:
        """Add to the causes of these names."""
        for name, values in parts.items():
            getattr(self, name).__iadd__(values)


def wander(
    rng: np.random.Generator, n: int, parts: dict[int, float], interval_s: float = INTERVAL_S
) -> Floats:
    """Return a sum of Ornstein-Uhlenbeck processes, given as standard deviation by time constant, (n,)."""
    total = np.zeros(n)
    for tau_s, deviation in parts.items():
        keep = float(np.exp(-interval_s / tau_s))
        kicks = rng.standard_normal(n) * deviation * np.sqrt(1 - keep**2)
        kicks[0] = rng.standard_normal() * deviation
        total += _decaying_sum(kicks, keep)
    return total


def _decaying_sum(kicks: Floats, keep: float) -> Floats:
    """Return x with x[i] = keep x[i - 1] + kicks[i], in blocks: one product with powers of ``keep`` each."""
    block = 256
    count = -(-len(kicks) // block)
    padded = np.zeros(count * block)
    padded[: len(kicks)] = kicks
    steps = np.arange(block)
    powers = np.tril(keep ** np.maximum(steps[:, None] - steps, 0).astype(np.float64))
    path = padded.reshape(count, block) @ powers.T
    decay = keep ** (steps + 1.0)
    state = 0.0
    for place in range(count):
        path[place] += decay * state
        state = path[place, -1]
    return np.asarray(path.reshape(-1)[: len(kicks)], np.float64)


def _wander_all(rng: np.random.Generator, n: int, parts: dict[str, dict[int, float]]) -> dict[str, Floats]:
    return {name: wander(rng, n, each) for name, each in parts.items()}


# -- the worlds ------------------------------------------------------------------------------------------


def _stationary(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """Nothing takes longer than 20 minutes."""
    causes.add(_wander_all(rng, len(at), QUICK))


def _slow(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """Besides, there are components of 90 minutes and of three hours."""
    causes.add(_wander_all(rng, len(at), QUICK))
    causes.add(_wander_all(rng, len(at), SLOW))


def _common_factor(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """One factor, such as clouds before the sun, moves all columns of the image together."""
    n = len(at)
    factor = wander(rng, n, {60: 0.2, 1200: 0.5, 5400: 0.5}) + _sun_and_cloud(rng, at)
    loads = rng.uniform(0.7, 1.3, 4) * (0.45, 0.15, 0.14, 0.2) * rng.choice([-1, 1], 4)
    causes.add({name: load * factor for name, load in zip(QUICK, loads, strict=False)})
    own = {
        name: {tau: 0.4 * deviation for tau, deviation in parts.items()}
        for name, parts in QUICK.items()
        if name != "traffic"
    }
    causes.add(_wander_all(rng, n, own | {"traffic": QUICK["traffic"]}))


def _sun_and_cloud(rng: np.random.Generator, at: Floats) -> Floats:
    """Return a series that jumps between -0.7 and 0.7 after 12 minutes on average."""
    changes = rng.random(len(at)) < INTERVAL_S / 720
    return np.asarray(0.7 - 1.4 * ((np.cumsum(changes) + rng.integers(2)) % 2), np.float64)


def _day_night(rng: np.random.Generator, at: Floats, causes: Causes, lengthening: float = 0.0) -> None:
    """The sun rises and sets, every day has its weather, and the camera sees by infrared in the dark.

    The sun is higher by ``lengthening`` from each day to the next.
    """
    sun = _sun(rng, at, causes, lengthening=lengthening)
    causes.infrared[:] = _switch(causes.light, below=-3.5, above=-2.8)
    causes.add({"traffic": -1.6 * (1 - sun), "contrast": np.where(causes.infrared, 0.12, 0.0)})
    _remaining_noise(rng, at, causes)


def _daytime(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """Days and nights, but the camera sends from 8 to 18 h alone."""
    _day_night(rng, at, causes)
    causes.present[:] = (_hour(at) >= 8) & (_hour(at) < 18)


def _shop(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """A shop with lamps and opening hours, busy and quiet weekdays, closed on Sundays."""
    hour, day = _hour(at), _day(at)
    weekday = day % 7
    early, late = rng.normal(0, 0.12, (2, day.max() + 2))
    begin = np.where(weekday == 5, 10.0, 9.0) + early[day]
    end = np.where(weekday == 5, 18.0, 20.0) + late[day]
    customers = (weekday != 6) & (hour >= begin) & (hour < end)
    lamps = (weekday != 6) & (hour >= begin - 0.5) & (hour < end + 0.4)
    window = 0.35 * _sun_height(at, 0.1) * lamps
    rush = 0.5 * np.exp(-((hour - 12.5) ** 2) / 2) + 0.7 * np.exp(-((hour - 17.5) ** 2) / 3)
    busy = np.array([-0.3, -0.2, 0.0, 0.1, 0.5, 0.6, 0.0])[weekday] + rng.normal(0, 0.15, day.max() + 2)[day]
    causes.add(
        {
            "light": np.where(lamps, 0.0, -5.0) + window,
            "chroma": np.where(lamps, 0.0, -0.5),
            "detail": np.where(lamps, 0.0, -0.3),
            "traffic": np.where(customers, rush + busy, np.where(lamps, -1.5, -6.0)),
        }
    )
    causes.classes[:, LABELS.index("car")] = 0.02
    causes.classes[:, LABELS.index("truck")] = 0.02
    _remaining_noise(rng, at, causes)


def _traffic(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """A road with lamps: rush hours on weekdays, quiet weekends, few trucks then."""
    hour, weekend = _hour(at), _day(at) % 7 >= 5
    _sun(rng, at, causes, darkest=-3.2)
    rush = 1.1 * np.exp(-((hour - 8) ** 2) / 1.5) + 1.2 * np.exp(-((hour - 17.3) ** 2) / 2.5)
    flow = np.where(weekend, 0.6 * np.exp(-((hour - 14) ** 2) / 18), 0.3 + rush)
    causes.add({"traffic": flow - 1.8 * (np.cos((hour - 3) / 24 * 2 * np.pi) > 0.6)})
    causes.classes[:, LABELS.index("truck")] = np.where(weekend, 0.25, 1.5)
    causes.classes[:, LABELS.index("bicycle")] = np.where(weekend, 2.0, 1.0)
    _remaining_noise(rng, at, causes)


def _sun(
    rng: np.random.Generator, at: Floats, causes: Causes, darkest: float = -7.0, lengthening: float = 0.0
) -> Floats:
    """Add sun and weather to the light; return how light it is, 0 at night and 1 by day, (n,)."""
    n, day = len(at), _day(at)
    season = rng.uniform(-0.1, 0.25) + lengthening * (at - START) / DAY_S
    sun = 1 / (1 + np.exp(-9 * _sun_height(at, season)))
    cloudy = rng.random(day.max() + 2)
    # Weather does not change at midnight: it fades from one day's to the next.
    hours = (at - START) / HOUR_S
    cover = np.interp(hours, np.arange(len(cloudy)) * 24.0 + 12, cloudy)
    cover = np.clip(cover + wander(rng, n, {1200: 0.08, 10_800: 0.2}), 0, 1)
    restless = 4 * cover * (1 - cover)
    gusts = wander(rng, n, {60: 0.1, 600: 0.25}) * restless
    causes.add(
        {
            "light": darkest + (1.2 - darkest) * sun - 1.6 * sun * cover + sun * gusts,
            "contrast": -0.18 * sun * cover,
            "chroma": -0.25 * sun * cover - 0.35 * (1 - sun),
            "detail": -0.08 * sun * cover,
        }
    )
    return sun


def _sun_height(at: Floats, season: Floats | float) -> Floats:
    """Return a measure of the sun's height; it is 0 when it rises and sets, about 6 and 18 h."""
    return np.asarray(np.sin((_hour(at) - 6) / 12 * np.pi) + season, np.float64)


def _remaining_noise(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """Add what is left of the quick causes, and some of the slow ones, where the day rules the rest."""
    for parts, factor in ((QUICK, 0.6), (SLOW, 0.3)):
        scaled = {name: {tau: factor * sd for tau, sd in each.items()} for name, each in parts.items()}
        causes.add(_wander_all(rng, len(at), scaled))


def _switch(values: Floats, below: float, above: float) -> npt.NDArray[np.bool_]:
    """Return a switch that goes on when values fall below one level and off when they rise above another."""
    marks = np.where(values < below, 1, np.where(values > above, 0, -1))
    known = np.maximum.accumulate(np.where(marks >= 0, np.arange(len(marks)), 0))
    return np.asarray(marks[known] == 1, np.bool_)


def _hour(at: Floats) -> Floats:
    return np.asarray((at - START) % DAY_S / HOUR_S, np.float64)


def _day(at: Floats) -> npt.NDArray[np.int64]:
    return np.asarray((at - START) // DAY_S, np.int64)


#: How much higher the sun is from one day to the next at 50 degrees of latitude in March, when days become
#: longer by 3.5 minutes each.
SPRING = 0.0076


def _spring(rng: np.random.Generator, at: Floats, causes: Causes) -> None:
    """Days and nights in spring: the sun rises and sets two minutes earlier and later every day."""
    _day_night(rng, at, causes, SPRING)


@dataclass(frozen=True, slots=True)
class World:
    """Describes one world."""

    compose: Callable[[np.random.Generator, Floats, Causes], None]
    #: Hour of the day at which the reference ends; None: any hour.
    reference_ends_h: int | None = None
    #: Most hours that the reference may have; None: any number.
    max_reference_h: float | None = None


WORLDS = {
    "stationary": World(_stationary),
    "slow": World(_slow),
    "common_factor": World(_common_factor),
    "day_night": World(_day_night),
    "daytime": World(_daytime),
    "shop": World(_shop),
    "traffic": World(_traffic),
    # Days and nights again, but the reference is ten hours of one day: it has seen neither dusk nor night.
    "first_night": World(_day_night, reference_ends_h=18, max_reference_h=10),
}


@dataclass(frozen=True, slots=True)
class Timeline:
    """Holds a scene whose reference may be taken before ``now`` and which is watched from then on."""

    scene: Scene
    now: float
    end: float


#: Worlds that need weeks to show what they are.
SEASONS = {"spring": World(_spring)}


def draw(name: str, seed: int, days: float, reference_days: float = REFERENCE_DAYS) -> Timeline:
    """Return the world of that name: ``reference_days`` before `now` and ``days`` after it.

    Raises KeyError for an unknown name.
    """
    world = (WORLDS | SEASONS)[name]
    rng = np.random.default_rng((seed, *name.encode()))
    weekday, hour = int(rng.integers(7)), int(rng.integers(24))
    if world.reference_ends_h is not None:
        hour = world.reference_ends_h
    now = START + (REFERENCE_DAYS + weekday) * DAY_S + hour * HOUR_S
    begin, end = now - reference_days * DAY_S, now + days * DAY_S
    at = np.arange(begin, end, INTERVAL_S)
    n = len(at)
    causes = Causes.ordinary(n)
    world.compose(rng, at, causes)
    objects = _objects(rng, at, causes)
    shown = causes.present
    at = at + rng.uniform(-0.2, 0.2, n) * INTERVAL_S  # as the service jitters them
    scene = Scene(
        at[shown],
        causes.light[shown],
        causes.detail[shown],
        causes.contrast[shown],
        causes.chroma[shown],
        causes.infrared[shown],
        objects,
        rng.standard_normal((int(shown.sum()), 8)),
        exposure=rng.normal(0, 0.35),
        noise=1.2 * np.exp(rng.normal(0, 0.25)),
        auto_exposure=rng.uniform(0.5, 0.75),
    )
    return Timeline(scene, now, end)


def _objects(rng: np.random.Generator, at: Floats, causes: Causes) -> Objects:
    """Draw the objects that pass: classes, paths and the busyness of the place are those of one camera."""
    per_minute = 2.0 * np.exp(rng.normal(0, 0.6))
    arrivals = rng.poisson(per_minute * INTERVAL_S / 60 * np.exp(np.clip(causes.traffic, -8, 2.5)))
    row = np.repeat(np.arange(len(at)), arrivals)
    count = len(row)
    usual = rng.dirichlet(np.array([5.0, 4.0, 1.5, 1.5, 1.0]))
    chances = np.cumsum(usual * causes.classes[row], axis=1)
    label = (rng.random(count)[:, None] * chances[:, -1:] > chances).sum(axis=1)
    paths = rng.uniform(0.15, 0.85, (3, 2, 2))
    paths[:, :, 0] = np.where(rng.random((3, 1)) < 0.7, [[-0.05, 1.05]], paths[:, :, 0])
    path = paths[rng.choice(3, count, p=rng.dirichlet(np.full(3, 2.0)))]
    path = np.where(rng.random((count, 1, 1)) < 0.5, path[:, ::-1], path)
    path = path + rng.normal(0, 0.05, (count, 2, 2))
    begin = at[row] + rng.uniform(0, INTERVAL_S, count)
    dwell = DWELL_S[label] * np.exp(rng.normal(0, 0.6, count))
    size, shape, clarity = rng.standard_normal((3, count))
    return Objects(begin, begin + dwell, label, path[:, 0], path[:, 1], size, shape, clarity)
