"""Draws a labelled set of three kinds of things, mugs, keys and road signs, in front of varied backgrounds.

    python -m tests.training.drawn_set FOLDER [--count 150] [--seed 1] [--small]

It gives the trials of `streamer train` in docs/training.md something to learn that nobody has trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from streamer.datasets.label_file import LabelledBox, PictureLabels, State
from streamer.datasets.set_folder import SetFolder

CLASSES = ("mug", "key", "sign")
Image = npt.NDArray[np.uint8]
_Drawn = tuple[Image, npt.NDArray[np.float32]]


def write_set(
    folder: Path, count: int, seed: int = 1, *, small: bool = False, size: tuple[int, int] = (640, 480)
) -> None:
    """Write a set of ``count`` pictures: 70 % train, 15 % val, 15 % test; with ``small``, of small things."""
    target = SetFolder(folder)
    parts, labels = {}, []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        image, boxes, classes = draw(rng, size, small=small)
        name = f"drawn-{number:04d}"
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))])[1].tobytes()
        target.write_image(f"{name}.jpg", data)
        parts[name] = ("val", "test")[number % 2] if number % 20 < 6 else "train"
        drawn = tuple(
            LabelledBox((float(x1), float(y1), float(x2), float(y2)), CLASSES[class_id])
            for (x1, y1, x2, y2), class_id in zip(boxes, classes, strict=True)
        )
        state = State.LABELLED if drawn else State.NOTHING_HERE
        labels.append(PictureLabels(name, f"{name}.jpg", size[0], size[1], state, drawn))
    target.write_classes(CLASSES, "tests.training.drawn_set")
    target.write_parts(parts)
    target.write_labels(labels)


def draw(
    rng: np.random.Generator, size: tuple[int, int], *, small: bool
) -> tuple[Image, list[Sequence[float]], list[int]]:
    """Return one picture, and the boxes and classes of the things in it; about one in eight shows none."""
    width, height = size
    image = _background(rng, width, height)
    boxes: list[Sequence[float]] = []
    classes: list[int] = []
    low, high = (0.05, 0.11) if small else (0.12, 0.45)
    for _ in range(0 if rng.random() < 0.12 else int(rng.integers(1, 5))):
        class_id = int(rng.integers(len(CLASSES)))
        side = int(np.exp(rng.uniform(np.log(low), np.log(high))) * height * 1.2)
        thing, alpha = _thing(rng, class_id, max(16, side))
        x, y = (int(rng.integers(0, max(1, limit - side))) for limit in (width, height))
        rows, columns = np.nonzero(alpha > 0.5)
        box = (x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1)
        if box[2] > width or box[3] > height or any(_overlap(box, other) > 0.15 for other in boxes):
            continue
        _paste(image, thing, alpha, x, y)
        boxes.append(box)
        classes.append(class_id)
    return _exposed(rng, image), boxes, classes


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return max(0, width) * max(0, height) / smaller


def _background(rng: np.random.Generator, width: int, height: int) -> Image:
    """Return smooth colours, a texture, and shapes that are none of the things."""
    image = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((2, 1.0), (5, 0.7), (14, 0.4), (60, 0.25)):
        noise = rng.uniform(-1, 1, (max(2, cells * height // width), cells, 3)).astype(np.float32)
        image += weight * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    image = 128 + image * rng.uniform(20, 60) + rng.uniform(-50, 50, 3).astype(np.float32)
    drawn = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(2, 14))):
        colour = [int(value) for value in rng.integers(0, 256, 3)]
        a = (int(rng.integers(width)), int(rng.integers(height)))
        b = (int(rng.integers(width)), int(rng.integers(height)))
        kind = rng.random()
        if kind < 0.4:
            cv2.line(drawn, a, b, colour, int(rng.integers(1, 9)), cv2.LINE_AA)
        elif kind < 0.7:
            cv2.rectangle(drawn, a, b, colour, -1 if rng.random() < 0.4 else int(rng.integers(1, 6)))
        else:
            axes = (int(rng.integers(5, width // 4)), int(rng.integers(5, height // 4)))
            cv2.ellipse(
                drawn, a, axes, float(rng.uniform(0, 180)), 0, 360, colour, int(rng.integers(-1, 5)) or 1
            )
    return drawn


def _thing(rng: np.random.Generator, class_id: int, side: int) -> _Drawn:
    """Return a thing (side, side, 3), and how opaque it is, 0..1."""
    scale = 256
    image = np.zeros((scale, scale, 3), np.uint8)
    mask = np.zeros((scale, scale), np.uint8)
    (_mug, _key, _sign)[class_id](rng, image, mask)
    turn = {0: 12.0, 1: 180.0, 2: 10.0}[class_id]
    matrix = cv2.getRotationMatrix2D((scale / 2, scale / 2), float(rng.uniform(-turn, turn)), 0.7)
    squeeze = np.exp(rng.normal(0, 0.1))
    matrix[0] *= squeeze
    matrix[0, 2] += scale / 2 * (1 - squeeze)
    image = cv2.warpAffine(image, matrix, (scale, scale), flags=cv2.INTER_AREA)
    mask = cv2.warpAffine(mask, matrix, (scale, scale))
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8), np.asarray(mask / 255, np.float32)


def _colour(rng: np.random.Generator) -> list[int]:
    return [int(value) for value in rng.integers(20, 236, 3)]


def _mug(rng: np.random.Generator, image: Image, mask: Image) -> None:
    body, inside = _colour(rng), _colour(rng)
    dark = [int(value * 0.6) for value in body]
    top, bottom = int(rng.integers(40, 80)), int(rng.integers(190, 230))
    left, right = 40, int(rng.integers(150, 185))
    side = 1 if rng.random() < 0.5 else -1
    middle = (right if side > 0 else left, (top + bottom) // 2)
    reach = int(rng.integers(28, 40))
    for target, colour in ((image, dark), (mask, [255])):
        cv2.ellipse(target, middle, (reach, (bottom - top) // 3), 0, 0, 360, colour, 14, cv2.LINE_AA)
    outline = np.array([[left, top], [right, top], [right - 8, bottom], [left + 8, bottom]], np.int32)
    centre = ((left + right) // 2, top)
    axes = ((right - left) // 2, 14)
    for target, colour in ((image, body), (mask, [255])):
        cv2.fillPoly(target, [outline], colour, cv2.LINE_AA)
        cv2.ellipse(target, (centre[0], bottom), (axes[0] - 8, 12), 0, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.ellipse(target, centre, axes, 0, 0, 360, inside if target is image else colour, -1, cv2.LINE_AA)
    if rng.random() < 0.5:
        y = int(rng.integers(top + 40, bottom - 30))
        cv2.rectangle(image, (left + 6, y), (right - 6, y + int(rng.integers(8, 30))), _colour(rng), -1)


def _key(rng: np.random.Generator, image: Image, mask: Image) -> None:
    shade = int(rng.integers(90, 230))
    metal = [shade, int(shade * rng.uniform(0.8, 1)), int(shade * rng.uniform(0.6, 1))]
    ring = int(rng.integers(30, 44))
    for target, colour in ((image, metal), (mask, [255])):
        cv2.circle(target, (60, 128), ring, colour, 18, cv2.LINE_AA)
        cv2.rectangle(target, (60 + ring, 120), (230, 136), colour, -1)
        for x in (170, 190, 212):
            cv2.rectangle(target, (x, 136), (x + 10, 136 + int(rng.integers(12, 34))), colour, -1)


def _sign(rng: np.random.Generator, image: Image, mask: Image) -> None:
    centre, radius = (128, 90), 74
    corners = int(rng.choice([3, 4, 8, 40]))
    turn = {3: -np.pi / 2, 4: 0.0, 8: np.pi / 8, 40: 0.0}[corners]
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    outline = np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1)
    inner = (outline - centre) * 0.74 + centre
    for target, colour in ((image, [120, 120, 120]), (mask, [255])):
        cv2.rectangle(target, (122, 120), (134, 246), colour, -1)
    rim = [[20, 20, 200], [180, 60, 20], [10, 10, 10]][int(rng.integers(3))]
    cv2.fillPoly(image, [outline.astype(np.int32)], rim, cv2.LINE_AA)
    cv2.fillPoly(mask, [outline.astype(np.int32)], [255], cv2.LINE_AA)
    fill = [[240, 240, 240], [40, 210, 240], rim][int(rng.integers(3))]
    cv2.fillPoly(image, [inner.astype(np.int32)], fill, cv2.LINE_AA)
    mark = [15, 15, 15] if fill != rim else [245, 245, 245]
    cv2.line(image, (128, 62), (128, 104), mark, 12)
    cv2.circle(image, (128, 124), 6, mark, -1)


def _paste(image: Image, thing: Image, alpha: npt.NDArray[np.float32], x: int, y: int) -> None:
    bottom, right = min(image.shape[0], y + len(thing)), min(image.shape[1], x + thing.shape[1])
    part = image[y:bottom, x:right]
    cut = alpha[: bottom - y, : right - x, None]
    part[:] = (part * (1 - cut) + thing[: bottom - y, : right - x] * cut).astype(np.uint8)


def _exposed(rng: np.random.Generator, image: Image) -> Image:
    """Return the picture under uneven light, with blur and noise."""
    height, width = image.shape[:2]
    light = rng.uniform(0.5, 1.3, (2, 2, 1)).astype(np.float32)
    shaded = image * cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    if rng.random() < 0.3:
        shaded = cv2.GaussianBlur(shaded, (0, 0), float(rng.uniform(0.5, 1.6)))
    shaded = shaded + rng.normal(0, rng.uniform(1, 10), shaded.shape)
    return np.asarray(np.clip(shaded, 0, 255), np.uint8)


def main() -> None:
    """Write a set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="things of 5 to 11 %% of the height")
    options = parser.parse_args()
    write_set(options.folder, options.count, options.seed, small=options.small)


if __name__ == "__main__":
    main()
