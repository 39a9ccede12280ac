"""Draws frames of distinct objects on one ground, of one object again and again, and of empty noisy walls.

The worlds know nothing of how duplicates are found. Grounds and noises differ in size, speed and strength;
all numbers follow from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]
WIDTH, HEIGHT = 320, 240
#: Returns the ground of the frame of that number.
Ground = Callable[[int], Pixels]
#: Frames with the boxes (n, 6) of their objects.
Frames = Iterator[tuple[Image, Boxes]]


@dataclass(frozen=True)
class Object:
    """Is one drawn object: pixels (side, side, 3), and which part of the box they cover (side, side, 1)."""

    pixels: Pixels
    mask: Pixels


def soft_noise(rng: np.random.Generator, spot_px: float, deviation: float, channels: int = 1) -> Pixels:
    """Return noise (HEIGHT, WIDTH, channels) in soft spots of that size, with that standard deviation."""
    found: Pixels = rng.normal(0, 1, (HEIGHT, WIDTH, channels)).astype(np.float32)
    if spot_px > 0:
        found = cv2.GaussianBlur(found, (0, 0), spot_px).reshape(HEIGHT, WIDTH, channels)
    found -= found.mean((0, 1))
    return found * np.float32(deviation / found.std())


# -- grounds -------------------------------------------------------------------------------------------


def ground(name: str, seed: int) -> Ground:
    """Return a function from the number of a frame to its ground without objects and without sensor noise."""
    fixed, rng = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    plain = np.full((HEIGHT, WIDTH, 3), (80, 85, 78), np.float32)
    texture = soft_noise(fixed, 1.5, 8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    slats = np.where(columns % 24 < 12, 15, -15).astype(np.float32)[..., None]
    clouds = np.zeros((HEIGHT, WIDTH, 1), np.float32)

    def moving_clouds(_: int) -> Pixels:
        nonlocal clouds
        clouds = 0.97 * clouds + soft_noise(rng, 50, 0.24 * 0.12)
        return plain * (1 + clouds)

    def bands(_: int) -> Pixels:
        phase = rng.uniform(0, 2 * np.pi)
        waves: Pixels = (1 + 0.12 * np.sin(rows / HEIGHT * 6 * np.pi + phase))[..., None]
        return plain * waves

    leaves = np.array([0.7, 1.0, 0.8], np.float32)
    drawn: dict[str, Ground] = {
        "plain": lambda _: plain,
        "dark": lambda _: plain * np.float32(0.2),
        "textured": lambda _: plain + 2 * texture,
        "moving belt": lambda _: plain + np.roll(texture, int(rng.integers(WIDTH)), 1),
        "moving slats": lambda _: plain + np.roll(slats, int(rng.integers(24)), 1),
        "leaves": lambda _: plain + soft_noise(rng, 4, 11, 3),
        "strong leaves": lambda _: plain + soft_noise(rng, 3, 25) * leaves,
        "leaves at one side": lambda _: plain + soft_noise(rng, 4, 20) * (columns < WIDTH / 2)[..., None],
        "spots of 8 px": lambda _: plain + soft_noise(rng, 8, 8),
        "spots of 20 px": lambda _: plain + soft_noise(rng, 20, 8),
        "clouds": moving_clouds,
        "flicker": lambda _: plain * np.float32(rng.uniform(0.7, 1.3)),
        "rolling bands": bands,
    }
    return drawn[name]


# -- objects -------------------------------------------------------------------------------------------


def objects(kind: str, count: int, seed: int, side: int = 24) -> list[Object]:
    """Return distinct objects of a kind."""
    return [_object(kind, np.random.default_rng([seed, 3, number]), side) for number in range(count)]


def _object(kind: str, rng: np.random.Generator, side: int) -> Object:
    large = 8 * side
    pixels = np.empty((large, large, 3), np.float32)
    mask = np.zeros((large, large), np.uint8)
    if kind in ("coloured polygons", "grey polygons"):
        corners = int(rng.integers(3, 9))
        angles, radii = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(0.35, 0.5, corners) * large
        points = large / 2 + np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)
        cv2.fillPoly(mask, [points.astype(np.int32)], 255)
        pixels[:] = rng.uniform(20, 235, 3) if kind == "coloured polygons" else rng.uniform(20, 235)
    elif kind in ("printed squares", "textured disks"):
        cells = 4 if kind == "printed squares" else 6
        print_ = rng.uniform(60, 220, (cells, cells)).astype(np.float32)
        if kind == "printed squares":
            print_ = np.where(rng.random((cells, cells)) < 0.5, 60, 200).astype(np.float32)
            cv2.rectangle(
                mask, (large // 12, large // 12), (large - large // 12, large - large // 12), 255, -1
            )
            grown = cv2.resize(print_, (large, large), interpolation=cv2.INTER_NEAREST)
        else:
            cv2.circle(mask, (large // 2, large // 2), int(0.45 * large), 255, -1)
            grown = cv2.resize(print_, (large, large), interpolation=cv2.INTER_CUBIC)
        pixels[:] = grown[..., None]
    else:
        raise AssertionError(kind)
    size = (side, side)
    covered: Pixels = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return Object(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), covered[..., None])


def belt(
    shown: list[Object], where: str, seed: int, *, noise: float = 4.0, quality: int = 90, lit: bool = False
) -> Frames:
    """Yield a frame for each object, at another place, with a box that is a little off."""
    rng, draw = np.random.default_rng([seed, 4]), ground(where, seed)
    for index, one in enumerate(shown):
        pixels, side = draw(index).copy(), one.pixels.shape[0]
        x, y = int(rng.integers(8, WIDTH - side - 8)), int(rng.integers(8, HEIGHT - side - 8))
        part = pixels[y : y + side, x : x + side]
        part[:] = part * (1 - one.mask) + one.pixels * one.mask
        pixels *= np.float32(rng.uniform(0.65, 1.3) if lit else 1)
        pixels += soft_noise(rng, 0, noise, 3)
        box = np.array([x, y, x + side, y + side]) + rng.normal(0, 0.04 * side, 4)
        yield as_jpeg(pixels, quality), np.array([[*box, 0.5, 0]], np.float32)


def wall(
    count: int, where: str, seed: int, *, noise: float = 4.0, quality: int = 90, false_boxes: str = "none"
) -> Frames:
    """Yield frames of a wall without objects; false boxes are "none", "some", "two" or "at rest"."""
    rng, draw = np.random.default_rng([seed, 5]), ground(where, seed)
    for index in range(count):
        pixels = draw(index) + soft_noise(rng, 0, noise, 3)
        number = {"none": 0, "some": int(rng.integers(0, 3)), "two": 2, "at rest": 1}[false_boxes]
        rows: list[Any] = []
        for _ in range(number):
            width, height = rng.uniform(10, 64, 2)
            x, y = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
            if false_boxes == "at rest":
                x, y, width, height = np.array([100, 90, 40, 40]) + rng.normal(0, 2, 4)
            rows.append([x, y, x + width, y + height, 0.3, 0])
        yield as_jpeg(pixels, quality), np.array(rows, np.float32).reshape(-1, 6)


def as_jpeg(pixels: npt.NDArray[Any], quality: int) -> Image:
    """Return the pixels after JPEG compression."""
    values = np.clip(pixels, 0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", values, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)
