"""Makes hours of drift rows from real clips: frames played in visits, under light that changes slowly.

Each frame is edited, encoded and detected as the service would see it, once for each edit and level of light,
and measured by the service's own code. Hours of rows then repeat these measurements in a random order: a part
of the clip is played, then another one, with busier and quieter hours.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.engine.detector import Detector
from inference.preprocess.letterbox import Letterbox
from streamer.drift.features import count_classes, frame_difference, top_class
from streamer.drift.rows import NUMERIC
from streamer.sampling.candidate import SampleCandidate, StreamInfo
from streamer.sampling.feature_extractor import extract_features
from tests.conftest import ROOT, SHARED
from tests.helpers.drift_series import DAY_S, HOUR_S, INTERVAL_S, START, Floats, Ints, Series
from tests.helpers.drift_worlds import wander

Image = npt.NDArray[np.uint8]

#: Path of a clip below the project or ../shared, and its model.
CLIPS = {
    "clip_belt": (ROOT / "data/sample.mp4", ROOT / "models/codes_v1.onnx"),
    "clip_people": (
        SHARED / "data/video/one-by-one-person-detection.mp4",
        SHARED / "models/yolox_nano.onnx",
    ),
    "clip_bottles": (SHARED / "data/video/bottle-detection.mp4", SHARED / "models/yolox_nano.onnx"),
}
#: Light in stops at which each frame is measured.
LEVELS = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])
#: Standard deviation of the light in stops by time constant in seconds.
LIGHT = {60: 0.03, 1200: 0.1, 5400: 0.12}
BUSY = {1200: 0.7, 5400: 0.5}
#: Mean number of rows that show neighbouring frames, before the clip is played from somewhere else.
VISIT_ROWS = 12
THRESHOLD = 0.4
JPEG_QUALITY = 80


# -- edits -----------------------------------------------------------------------------------------------


def _exposure(image: Image) -> Image:
    return _bytes(image * 1.45)


def _focus(image: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 3), np.uint8)


def _motion_blur(image: Image) -> Image:
    return np.asarray(cv2.filter2D(image, -1, np.full((1, 15), 1 / 15)), np.uint8)


def _shift(image: Image) -> Image:
    height, width = image.shape[:2]
    return _warp(image, np.array([[1, 0, 0.1 * width], [0, 1, 0]], np.float32), (width, height))


def _rotation(image: Image) -> Image:
    height, width = image.shape[:2]
    # A tenth of a quarter turn.
    return _warp(image, cv2.getRotationMatrix2D((width / 2, height / 2), 9, 1.0), (width, height))


def _warp(image: Image, matrix: object, size: tuple[int, int]) -> Image:
    return np.asarray(cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _covered_part(image: Image) -> Image:
    covered = image.copy()
    width = image.shape[1]
    covered[:, : width // 3] = 25
    return _bytes(covered + np.random.default_rng(0).normal(0, 2, image.shape))


def _other_objects(image: Image) -> Image:
    """Paste a photograph of other things that stand in view from now on."""
    file = SHARED / "data/images/bus.jpg"
    still = cv2.imread(str(file if file.exists() else ROOT / "data/stills/leaflet.jpg"))
    height, width = image.shape[:2]
    edited = image.copy()
    size = int(0.45 * height)
    edited[height - size :, width - size :] = cv2.resize(still, (size, size), interpolation=cv2.INTER_AREA)
    return edited


def _infrared(image: Image) -> Image:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None].repeat(3, axis=2)
    grain = np.random.default_rng(int(image[::7, ::7].sum())).normal(0, 7, (*image.shape[:2], 1))
    return _bytes(0.75 * grey + 12 + grain)


def _bytes(values: npt.NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


EDITS: dict[str, Callable[[Image], Image]] = {
    "exposure": _exposure,
    "lost focus": _focus,
    "motion blur": _motion_blur,
    "shift by 10 %": _shift,
    "rotation by 10 %": _rotation,
    "covered part": _covered_part,
    "other objects": _other_objects,
    "infrared": _infrared,
}
#: Name of the clip as it is.
UNEDITED = ""


# -- measurements ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """Holds the measurements of all frames (f) of an edit at all levels of light (l)."""

    #: (l, f, columns of NUMERIC); `frame_diff` is missing, because it depends on the frame before.
    numbers: npt.NDArray[np.float32]
    #: Luma of the thumbnails, (l, f, height, width).
    thumbs: Image
    #: Top class (f,), -1 for none, and counts of the classes (f, labels).
    top: Ints
    counts: Ints
    labels: tuple[str, ...]
    resolution: str
    _differences: dict[tuple[int, int], float] = field(default_factory=dict)

    def difference(self, before: int, place: int) -> float:
        """Return `frame_diff` of two measurements, given as l times the number of frames plus f."""
        key = before, place
        if key not in self._differences:
            thumbs = self.thumbs.reshape(-1, *self.thumbs.shape[2:])
            self._differences[key] = frame_difference(thumbs[place], thumbs[before])
        return self._differences[key]


def read_frames(path: Path, count: int) -> list[Image]:
    """Return ``count`` frames at equal distances over the clip. Raises ValueError for an unreadable clip."""
    capture = cv2.VideoCapture(str(path))
    found: list[Image] = []
    while True:
        more, frame = capture.read()
        if not more:
            break
        found.append(frame)
    if not found:
        raise ValueError(f"{path} has no readable frame")
    return [found[place] for place in np.linspace(0, len(found) - 1, count).astype(int)]


@functools.cache
def measure(clip: str, edit: str, frames: int, levels: int = len(LEVELS)) -> Measured:
    """Return the measurements of a clip of ``CLIPS`` with an edit of ``EDITS``; the clip has so many frames.

    With fewer ``levels`` than there are, those in the middle are used.
    """
    path, model = CLIPS[clip]
    detector = _detector(model)
    stops = LEVELS[(len(LEVELS) - levels) // 2 :][:levels]
    change = EDITS[edit] if edit else lambda image: image
    numbers, thumbs, tops, counts = [], [], [], []
    labels = detector.model.labels
    size = (0, 0)
    for frame in read_frames(path, frames):
        size = frame.shape[1], frame.shape[0]
        # Light changes the boxes far less than an edit does, so a frame is detected once.
        boxes = _detect(detector, change(frame))
        tops.append(_position(labels, top_class(boxes, THRESHOLD, labels)))
        counts.append([dict(count_classes(boxes, THRESHOLD, labels)).get(label, 0) for label in labels])
        for place, light in enumerate(stops):
            grain = np.random.default_rng((len(tops), place)).normal(0, 1.2, frame.shape)
            lit = change(_bytes(frame * 2 ** (0.6 * light) + grain))
            values, thumb = extract_features(_candidate(lit, boxes, labels), lit, None)
            numbers.append([values[name] for name in NUMERIC])
            thumbs.append(thumb)
    order = frames, len(stops)
    table = np.array(numbers, np.float32).reshape(*order, len(NUMERIC)).swapaxes(0, 1)
    small = np.array(thumbs).reshape(*order, *thumbs[0].shape).swapaxes(0, 1)
    return Measured(table, small, np.array(tops), np.array(counts, np.int64), labels, f"{size[0]}x{size[1]}")


@functools.cache
def _detector(path: Path) -> Detector:
    return Detector(path, version="v1", device="cpu", batch_max=1)


def _detect(detector: Detector, image: Image) -> Boxes:
    box = Letterbox.fit(image.shape[1], image.shape[0], detector.model)
    slot = np.empty((detector.model.input_height, detector.model.input_width, 3), np.uint8)
    box.write(image, slot)
    raw = detector.infer([slot], thread=0)
    params = DetectionParams(conf_threshold=THRESHOLD / 2)
    return box.to_source(detector.postprocess(raw, 0, params))


def _candidate(image: Image, boxes: Boxes, labels: tuple[str, ...]) -> SampleCandidate:
    """Return the frame as the sampling process receives it."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return SampleCandidate(
        stream=StreamInfo("gate", "websocket", "v1", "clip", "ab" * 32, labels),
        captured_at=START,
        seq=1,
        threshold=THRESHOLD,
        low_threshold=THRESHOLD / 2,
        iou_threshold=0.45,
        class_ids=(),
        width=image.shape[1],
        height=image.shape[0],
        rotation=0,
        data=data.tobytes(),
        boxes=boxes,
    )


def _position(labels: tuple[str, ...], label: str) -> int:
    return labels.index(label) if label in labels else -1


# -- rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClipRecording:
    """Holds which frame a camera shows at which light: ``at``, ``frame`` and ``level`` are (n,)."""

    clip: str
    frames: int
    levels: int
    at: Floats
    frame: Ints
    level: Ints
    now: float
    end: float
    kinds: tuple[str, ...] = tuple(EDITS)

    @functools.cached_property
    def series(self) -> Series:
        """The rows without an edit."""
        return self.faulty(UNEDITED, 0.0, np.inf, 0)

    def faulty(self, kind: str, begin: float, end: float, seed: int) -> Series:
        """Return the rows with ``begin`` <= at < ``end``, all with an edit of ``EDITS`` or none."""
        first, last = np.searchsorted(self.at, [begin, end])
        frame, level = self.frame[first:last], self.level[first:last]
        found = measure(self.clip, kind, self.frames, self.levels)
        numbers = found.numbers[level, frame].copy()
        place = (level * self.frames + frame).tolist()
        motion = [found.difference(*pair) for pair in itertools.pairwise(place)]
        numbers[:, NUMERIC.index("frame_diff")] = [np.nan, *motion] if place else []
        return Series(
            self.at[first:last],
            numbers,
            found.top[frame],
            found.counts[frame],
            found.labels,
            found.resolution,
        )


def missing_file(clip: str) -> Path | None:
    """Return the file that a clip needs and that is not here; None if all are."""
    return next((path for path in CLIPS[clip] if not path.exists()), None)


def record_clip(
    clip: str, seed: int, days: float, reference_days: float, frames: int = 30, levels: int = 3
) -> ClipRecording:
    """Draw what a camera shows for ``reference_days`` before `now` and for ``days`` after it."""
    rng = np.random.default_rng((seed, *clip.encode()))
    now = START + reference_days * DAY_S + float(rng.integers(24)) * HOUR_S
    end = now + days * DAY_S
    at = np.arange(now - reference_days * DAY_S, end, INTERVAL_S)
    n = len(at)
    boxes = measure(clip, UNEDITED, frames, levels).counts.sum(axis=1)
    order = np.argsort(boxes, kind="stable")
    light = (wander(rng, n, LIGHT) - LEVELS[0]) / (LEVELS[1] - LEVELS[0]) - (len(LEVELS) - levels) // 2
    # Values between two levels are the one or the other at random, so that their mean is right.
    level = np.clip(np.floor(light + rng.random(n)).astype(np.int64), 0, levels - 1)
    busy = 1 / (1 + np.exp(-wander(rng, n, BUSY)))
    frame = np.empty(n, np.int64)
    place = 0
    while place < n:
        length = min(n - place, int(rng.geometric(1 / VISIT_ROWS)))
        half = order[frames // 2 :] if rng.random() < busy[place] else order[: frames // 2]
        frame[place : place + length] = (rng.choice(half) + np.arange(length)) % frames
        place += length
    return ClipRecording(clip, frames, levels, at, frame, level, now, end)
