"""Imitates a poor camera: changes light and tone of a scene, and adds blur, noise and JPEG artefacts."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from models.training.cards import Image
from models.training.textures import (
    smooth_noise,
)

#: An image of floats in 0..255; values outside this range are clipped later.
Light = npt.NDArray[np.float32]


def expose(rng: np.random.Generator, image: Image, kind: str) -> Image:
    """Return the image as a poor camera would take it: light, lens, sensor and compression."""
    gentle = kind in ("flush", "page")
    if gentle and rng.random() < 0.5:
        if rng.random() < 0.4:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        return _compressed(rng, image, 60) if rng.random() < 0.5 else image
    exposed = _disturbed(rng, _toned(rng, _lit(rng, image)))
    reach = max(exposed.shape)
    exposed = _blurred(rng, np.clip(exposed, 0, 255), reach, gentle=gentle)
    if rng.random() < 0.6:
        strength = np.exp(rng.uniform(np.log(1), np.log(18)))
        noise = rng.normal(0, strength, (*exposed.shape[:2], 1 if rng.random() < 0.5 else 3))
        exposed = exposed + noise.astype(np.float32)
    result = np.clip(exposed, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        result = cv2.cvtColor(cv2.cvtColor(result, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return _compressed(rng, result, 18) if rng.random() < 0.7 else result


def _lit(rng: np.random.Generator, image: Image) -> Light:
    """Return the image in uneven light, at times with the edge of a shadow."""
    height, width = image.shape[:2]
    reach = max(height, width)
    light = np.ones((height, width), np.float32)
    if rng.random() < 0.7:
        light += smooth_noise(rng, height, width, reach / rng.uniform(0.7, 3)) * rng.uniform(0, 0.5)
    if rng.random() < 0.15:
        edge = np.zeros((height, width), np.uint8)
        points = rng.uniform(-0.5, 1.5, (4, 2)) * [width, height]
        cv2.fillPoly(edge, [points.astype(np.int32)], 255)
        light *= 1 - cv2.GaussianBlur(edge, (0, 0), rng.uniform(1, 15)) / 255.0 * rng.uniform(0.2, 0.65)
    return image.astype(np.float32) * light[..., None]


def _toned(rng: np.random.Generator, image: Light) -> Light:
    """Return the image with other colours, contrast and level."""
    if rng.random() < 0.5:  # few real things are as colourful as random colours
        grey = image.mean(2, keepdims=True)
        image = grey + (image - grey) * rng.uniform(0, 0.8)
    if rng.random() < 0.5:
        image *= rng.uniform(0.8, 1.2, 3).astype(np.float32)
    contrast, level = rng.uniform(0.45, 1.15), rng.uniform(-30, 40)
    return (image - 128) * contrast + 128 + level


def _disturbed(rng: np.random.Generator, image: Light) -> Light:
    """Return the image, at times with glare, dark as at night, or with the pattern of a screen or print."""
    height, width = image.shape[:2]
    if rng.random() < 0.15:  # glare
        centre = rng.uniform(0, 1, 2) * [width, height]
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        spot = np.exp(
            -((x - centre[0]) ** 2 + (y - centre[1]) ** 2)
            / (2 * (max(height, width) * rng.uniform(0.03, 0.2)) ** 2)
        )
        image += spot[..., None] * rng.uniform(60, 200)
    if rng.random() < 0.12:  # night
        image *= rng.uniform(0.12, 0.5)
    if rng.random() < 0.06:  # a screen's rows, or the dots of a print
        rows = np.sin(np.arange(height) * 2 * np.pi / rng.uniform(2, 6) + rng.uniform(0, 6))
        columns = np.sin(np.arange(width) * 2 * np.pi / rng.uniform(2, 6))
        image *= (1 + rng.uniform(0, 0.2) * rows[:, None] + rng.uniform(0, 0.2) * columns[None])[..., None]
    return image


def _blurred(rng: np.random.Generator, image: Light, reach: int, *, gentle: bool) -> Light:
    chance = rng.random()
    most = reach / 512 * (1.2 if gentle else 3.2)
    if chance < 0.3:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, max(0.4, most)))
    if chance < 0.45:  # the camera moved
        length = int(rng.integers(2, max(3, int(most * 4))))
        kernel = np.zeros((length, length), np.float32)
        turn = rng.uniform(0, np.pi)
        middle = (length - 1) / 2
        step = np.array([np.cos(turn), np.sin(turn)]) * middle
        ends = [tuple(np.round(middle + sign * step).astype(int).tolist()) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0)
        return cv2.filter2D(image, -1, kernel / kernel.sum())
    if chance < 0.6:  # few pixels, as from a distant webcam
        scale = rng.uniform(0.35, 0.9)
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return image


def _compressed(rng: np.random.Generator, image: Image, lowest: int) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(lowest, 96))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
