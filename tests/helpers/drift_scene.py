"""Draws the rows that a camera would give of a simulated scene: light and texture make the image columns,
objects that pass make the columns of the boxes.

Columns are not drawn one by one. They follow from a few causes, as they do at a camera: less light lowers the
brightness and raises the noise, noise lowers confidences, low confidences hide boxes. Units and ranges are
those of `streamer/drift/features.py`; the constants are round numbers of an ordinary 720p camera, chosen
without regard to any detector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.drift.features import EDGE_SHARE
from streamer.drift.rows import NUMERIC
from tests.helpers.drift_series import Floats, Ints, Series

LABELS = ("person", "car", "truck", "bicycle", "dog")
#: Of each class: median share of the image, log of width over height, median seconds in view.
_AREA = np.array([0.018, 0.045, 0.09, 0.02, 0.008])
_LOG_ASPECT = np.array([-0.9, 0.55, 0.6, 0.1, 0.35])
DWELL_S = np.array([40.0, 18.0, 22.0, 16.0, 35.0])
#: Boxes below this score are the "low" ones; those below half of it are not reported.
THRESHOLD = 0.5
WIDTH, HEIGHT = 1280, 720


@dataclass(slots=True)
class Objects:
    """Holds the objects that pass, each with the times between which it is in view; arrays are (objects,)."""

    begin: Floats
    end: Floats
    label: Ints
    #: Centre where the object appears and where it leaves, as shares of the image, (objects, 2).
    origin: Floats
    target: Floats
    #: Standard normal numbers: size, shape, how well the model knows it.
    size: Floats
    shape: Floats
    clarity: Floats

    def overlapping(self, begin: float, end: float) -> Objects:
        """Return the objects that are in view at some time between ``begin`` and ``end``."""
        chosen = (self.begin < end) & (self.end > begin)
        return Objects(*(getattr(self, name)[chosen] for name in self.__slots__))


@dataclass(slots=True)
class Effect:
    """Says what a fault does to each row, as arrays of (n,) or one number for all rows."""

    #: Exposure in stops, and logarithms of factors of contrast, fine detail and colour.
    exposure: Floats | float = 0.0
    contrast: Floats | float = 0.0
    detail: Floats | float = 0.0
    chroma: Floats | float = 0.0
    #: What confidences lose.
    confidence: Floats | float = 0.0
    #: How far everything in the image moves, in shares of the image.
    shift: tuple[float, float] = (0.0, 0.0)
    #: Class probabilities of objects that appear from now on; None: as before.
    mix: Floats | None = None
    #: Whether every frame is the first one.
    frozen: bool = False


@dataclass(slots=True)
class Scene:
    """Holds the causes behind n rows: ``at`` (n,) unix seconds, all other arrays (n,) unless stated."""

    at: Floats
    #: Light of the scene in stops, 0 on an ordinary day.
    light: Floats
    #: Logarithms of factors: fine detail, contrast (haze lowers it), colour.
    detail: Floats
    contrast: Floats
    chroma: Floats
    #: Whether the camera sees by its infrared lamps, without colours.
    infrared: npt.NDArray[np.bool_]
    objects: Objects
    #: Standard normal numbers of each row that nothing else depends on, (n, 8).
    jitter: Floats
    #: Constants of the camera: mean exposure in stops, noise, detail, colour, and its share of automatic
    #: exposure.
    exposure: float
    noise: float
    auto_exposure: float

    def between(self, begin: float, end: float) -> Scene:
        """Return the rows with ``begin`` <= at < ``end`` and the objects that they show."""
        first, last = np.searchsorted(self.at, [begin, end])
        part = slice(first, last)
        return Scene(
            self.at[part],
            self.light[part],
            self.detail[part],
            self.contrast[part],
            self.chroma[part],
            self.infrared[part],
            self.objects.overlapping(begin, end),
            self.jitter[part],
            self.exposure,
            self.noise,
            self.auto_exposure,
        )

    def series(self, effect: Effect | None = None, seed: int = 0) -> Series:
        """Return the rows; ``seed`` draws the rows' own noise of the boxes and the classes of ``effect``."""
        effect = effect or Effect()
        rng = np.random.default_rng((seed, 0x5CE0E))
        image, quality = self._image(effect)
        boxes, top, counts = _boxes(self, effect, quality, rng)
        motion = boxes.pop("motion")
        jumps = np.abs(np.diff(image["brightness"], prepend=image["brightness"][:1]))
        image["jpeg_bpp"] += 0.02 * np.minimum(boxes["n_boxes"], 10)
        image["frame_diff"] = 0.55 * image["noise"] + 70 * motion + 0.8 * jumps
        image["frame_diff"] *= np.exp(0.08 * self.jitter[:, 6])
        columns = image | boxes
        numbers = np.column_stack([columns[name] for name in NUMERIC]).astype(np.float32)
        if effect.frozen and len(numbers):
            numbers[:], top[:], counts[:] = numbers[0], top[0], counts[0]
            numbers[:, NUMERIC.index("frame_diff")] = 0.0
        return Series(self.at, numbers, top, counts, LABELS)

    def _image(self, effect: Effect) -> tuple[dict[str, Floats], Floats]:
        """Return the image columns, and what the image takes from confidences."""
        n, jitter, seen = len(self.at), self.jitter, self.infrared
        # By infrared the lamps light the scene; the sky hardly matters.
        light = np.where(seen, -3.0 + 0.1 * (self.light + 5.0), self.light)
        stops = (1 - self.auto_exposure) * light + np.where(seen, 0.3, 0.0)
        stops = stops + self.exposure + effect.exposure
        # Film-like response: the luma saturates at both ends.
        mean = 1 / (1 + np.exp(-(stops - 0.25)))
        brightness = 255 * mean + 0.6 * jitter[:, 0]
        spread = 62 * (4 * mean * (1 - mean)) ** 0.7 * np.exp(self.contrast + effect.contrast)
        contrast = spread * np.exp(0.01 * jitter[:, 1])
        grain = self.noise * 2 ** (0.35 * np.maximum(0, -self.auto_exposure * light))
        texture = np.exp(self.detail + effect.detail) * contrast
        noise = np.sqrt(grain**2 + (0.012 * texture) ** 2) * np.exp(0.02 * jitter[:, 2])
        sharpness = np.log1p(0.25 * texture**2 + 6 * grain**2) + 0.03 * jitter[:, 3]
        chroma = np.exp(self.chroma + effect.chroma) * np.where(seen, 0.01, 1.0)
        columns = {
            "brightness": np.clip(brightness, 0, 255),
            "contrast": contrast,
            "dark_frac": _normal_cdf((16 - brightness) / (1.2 * contrast)),
            "bright_frac": _normal_cdf((brightness - 239) / (1.2 * contrast)),
            "saturation": np.clip(0.3 * chroma + 0.004 * grain * (~seen), 0, 1) * np.exp(0.01 * jitter[:, 4]),
            "colorfulness": (26 * chroma * contrast / 55 + 0.25 * grain) * np.exp(0.01 * jitter[:, 5]),
            "log_sharpness": sharpness,
            "noise": noise,
            "jpeg_bpp": 0.25 + 0.12 * np.maximum(0, sharpness - 4) + 0.12 * noise + 0.01 * jitter[:, 7],
            "aspect": np.full(n, WIDTH / HEIGHT),
            "log_mpix": np.full(n, math.log(WIDTH * HEIGHT / 1e6)),
        }
        blur = np.maximum(0, -(self.detail + effect.detail + np.minimum(0, self.contrast + effect.contrast)))
        penalty = 0.07 * np.log(np.maximum(grain / 1.2, 0.5)) + 0.1 * blur + np.where(contrast < 12, 0.3, 0.0)
        return columns, penalty + effect.confidence


def _normal_cdf(values: Floats) -> Floats:
    """Return the standard normal distribution function, approximated by a logistic one (error < .01)."""
    return 1 / (1 + np.exp(-1.702 * np.clip(values, -30, 30)))


def _boxes(
    scene: Scene, effect: Effect, penalty: Floats, rng: np.random.Generator
) -> tuple[dict[str, Floats], Ints, Ints]:
    """Return the columns of the boxes (and `motion`, the area in motion), the top classes, and the counts."""
    n = len(scene.at)
    objects = scene.objects
    label = objects.label
    if effect.mix is not None and n:
        drawn = rng.choice(len(LABELS), len(label), p=effect.mix)
        label = np.where(objects.begin >= scene.at[0], drawn, label)
    first, last = np.searchsorted(scene.at, objects.begin), np.searchsorted(scene.at, objects.end)
    lengths = last - first
    which = np.repeat(np.arange(len(label)), lengths)
    row = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[which]
    share = (scene.at[row] - objects.begin[which]) / (objects.end - objects.begin)[which]
    centre = objects.origin[which] + share[:, None] * (objects.target - objects.origin)[which]
    centre = centre + effect.shift
    kind = label[which]
    area = _AREA[kind] * np.exp(0.5 * objects.size[which]) * (0.4 + 1.2 * np.clip(centre[:, 1], 0, 1))
    ratio = np.exp(_LOG_ASPECT[kind] + 0.15 * objects.shape[which]) * HEIGHT / WIDTH
    half = np.sqrt(np.column_stack([area * ratio, area / ratio])) / 2
    low, high = np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)
    side = high - low
    score = 0.8 + 0.1 * objects.clarity[which] + 0.05 * rng.standard_normal(len(which)) - penalty[row]
    score = np.where(np.minimum(side[:, 0], side[:, 1]) < 0.02, 0.0, np.clip(score, 0, 0.97))
    speed = np.abs(objects.target - objects.origin).sum(axis=1)[which] * np.minimum(
        1, 8 / np.maximum(5, (objects.end - objects.begin)[which])
    )
    motion = np.bincount(row, side.prod(axis=1) * np.minimum(1, 6 * speed), n)
    faint = np.bincount(row, (score >= THRESHOLD / 2) & (score < THRESHOLD), n)
    # Things that only resemble an object, far below the threshold: leaves, shadows, reflections.
    faint = faint + rng.poisson(0.25, n) * (penalty < 0.4)
    shown = score >= THRESHOLD
    row, score, low, high, kind = row[shown], score[shown], low[shown], high[shown], kind[shown]
    order = np.argsort(row + 0.5 * score)
    row, score, low, high, kind = row[order], score[order], low[order], high[order], kind[order]
    groups = _Groups(row, n)
    side, middle = high - low, (high + low) / 2
    area = side.prod(axis=1)
    touching = (np.minimum(low, 1 - high).min(axis=1) <= EDGE_SHARE).astype(np.float64)
    counts = np.bincount(row * len(LABELS) + kind, minlength=n * len(LABELS)).reshape(n, len(LABELS))
    shown_count = groups.count.astype(np.float64)
    total = shown_count + faint
    columns = {
        "motion": motion,
        "n_boxes": shown_count,
        "n_low": faint,
        "no_box": (groups.count == 0).astype(np.float64),
        "conf_mean": groups.mean(score),
        "conf_max": groups.pick(score, last=True),
        "conf_min": groups.pick(score, last=False),
        "frac_low": np.where(total > 0, faint / np.maximum(total, 1), np.nan),
        "area_med": groups.median(area),
        "area_max": groups.greatest(area),
        "log_aspect_med": groups.median(np.log(side[:, 0] * WIDTH / (side[:, 1] * HEIGHT))),
        "cx_med": groups.median(middle[:, 0]),
        "cy_med": groups.median(middle[:, 1]),
        "edge_frac": groups.mean(touching),
        "n_classes": (counts > 0).sum(axis=1).astype(np.float64),
        "overlap_max": groups.overlap(low, high),
    }
    top = groups.pick(kind.astype(np.float64), last=True)
    return columns, np.where(np.isnan(top), -1, top).astype(np.int64), counts


class _Groups:
    """Computes figures of each of ``n`` rows from values that are sorted by row; NaN for rows without any."""

    def __init__(self, row: Ints, n: int) -> None:
        self._row, self._n = row, n
        self.count = np.bincount(row, minlength=n)
        self._first = np.cumsum(self.count) - self.count
        self._some = self.count > 0

    def mean(self, values: Floats) -> Floats:
        """Return the mean of each row."""
        return np.where(
            self._some, np.bincount(self._row, values, self._n) / np.maximum(self.count, 1), np.nan
        )

    def pick(self, values: Floats, *, last: bool) -> Floats:
        """Return the first or last value of each row."""
        found = np.full(self._n, np.nan)
        place = self._first + (self.count - 1 if last else 0)
        found[self._some] = values[place[self._some]]
        return found

    def _order(self, values: Floats) -> Ints:
        """Return the order by row and value: one sort of one key, which is faster than np.lexsort."""
        if not len(values):
            return np.zeros(0, np.int64)
        least = values.min()
        return np.argsort(self._row + 0.999 * (values - least) / max(values.max() - least, 1e-12))

    def greatest(self, values: Floats) -> Floats:
        """Return the greatest value of each row."""
        return self.pick(values[self._order(values)], last=True)

    def median(self, values: Floats) -> Floats:
        """Return the median of each row."""
        ordered = values[self._order(values)]
        found = np.full(self._n, np.nan)
        some = self._some
        lower, upper = self._first + (self.count - 1) // 2, self._first + self.count // 2
        found[some] = (ordered[lower[some]] + ordered[upper[some]]) / 2
        return found

    def overlap(self, low: Floats, high: Floats) -> Floats:
        """Return the greatest IoU of horizontal neighbours of each row; 0 with fewer than two boxes."""
        order = self._order(low[:, 0])
        low, high, row = low[order], high[order], self._row[order]
        shared = np.clip(np.minimum(high[1:], high[:-1]) - np.maximum(low[1:], low[:-1]), 0, None).prod(
            axis=1
        )
        areas = (high - low).prod(axis=1)
        iou = np.where(row[1:] == row[:-1], shared / (areas[1:] + areas[:-1] - shared), 0.0)
        found = np.zeros(self._n)
        np.maximum.at(found, row[1:], iou)
        return found
