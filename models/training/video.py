"""Imitates what a video camera and its encoder do to a picture, in addition to `exposure`."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from models.training.textures import Image

Ids = npt.NDArray[np.uint8]


def filmed(rng: np.random.Generator, image: Image, ids: Ids) -> tuple[Image, Ids]:
    """Return a picture (h, w, 3) as a frame of a video, and its code numbers (h, w) where they are then.

    Each fault appears in some of the pictures.
    """
    if rng.random() < 0.3:
        image, ids = _rolling(rng, image, ids)
    if rng.random() < 0.35:
        image = _moved(rng, image)
    if rng.random() < 0.5:
        image = _exposed(rng, image)
    if rng.random() < 0.12:
        image = _interlaced(rng, image)
    return (_encoded(rng, image) if rng.random() < 0.7 else image), ids


def _rolling(rng: np.random.Generator, image: Image, ids: Ids) -> tuple[Image, Ids]:
    """Return rows shifted by when they were read: lean, waves; and at times the flicker of lamps."""
    height, width = image.shape[:2]
    row = np.arange(height, dtype=np.float32) / height
    shift = rng.normal(0, 0.06) * width * row
    shift = (
        shift
        + np.sin(row * 2 * np.pi * rng.uniform(1, 9) + rng.uniform(0, 6)) * rng.uniform(0, 0.008) * width
    )
    x = np.arange(width, dtype=np.float32)[None] + shift[:, None].astype(np.float32)
    y = np.repeat(np.arange(height, dtype=np.float32)[:, None], width, 1)
    x = x.astype(np.float32)
    image = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    ids = cv2.remap(ids, x, y, cv2.INTER_NEAREST)
    if rng.random() < 0.4:
        bands = 1 + rng.uniform(0.03, 0.3) * np.sin(row * 2 * np.pi * rng.uniform(0.5, 6) + rng.uniform(0, 6))
        image = np.clip(image * bands[:, None, None], 0, 255).astype(np.uint8)
    return image, ids


def _moved(rng: np.random.Generator, image: Image) -> Image:
    """Return the picture blurred along a curve, and at times a part of it sharper than the rest."""
    size = int(np.exp(rng.uniform(np.log(3), np.log(max(4, max(image.shape) / 14)))))
    kernel = np.zeros((2 * size + 1, 2 * size + 1), np.float32)
    turn = rng.uniform(0, np.pi)
    bend = rng.normal(0, 0.3)
    for t in np.linspace(-0.5, 0.5, 4 * size):
        px = size + (t * np.cos(turn) - bend * t * t * np.sin(turn)) * size
        py = size + (t * np.sin(turn) + bend * t * t * np.cos(turn)) * size
        kernel[round(float(np.clip(py, 0, 2 * size))), round(float(np.clip(px, 0, 2 * size)))] += 1
    blurred = cv2.filter2D(image, -1, kernel / kernel.sum())
    if rng.random() < 0.4:
        mask = np.zeros(image.shape[:2], np.uint8)
        centre = tuple(int(v) for v in rng.uniform(0, 1, 2) * [image.shape[1], image.shape[0]])
        axes = tuple(int(v) for v in rng.uniform(0.1, 0.5, 2) * max(image.shape))
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
        alpha = cv2.GaussianBlur(mask, (0, 0), 9)[..., None] / 255.0
        return (image * (1 - alpha) + blurred * alpha).astype(np.uint8)
    return np.asarray(blurred, np.uint8)


def _exposed(rng: np.random.Generator, image: Image) -> Image:
    """Return the picture too dark or too bright, with noise of a high gain and a wrong white balance."""
    light = (image.astype(np.float32) / 255) ** 2.2
    light *= np.exp(rng.normal(0, 0.8)) * np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    gain = rng.uniform(0, 0.05)
    noise = rng.normal(0, 1, image.shape[:2]).astype(np.float32)[..., None] * np.sqrt(light + 0.01) * gain
    return (np.clip(light + noise, 0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def _interlaced(rng: np.random.Generator, image: Image) -> Image:
    """Return the picture with every other row a few pixels aside, as of a moving camera with half frames."""
    image = image.copy()
    image[1::2] = np.roll(image[1::2], int(rng.integers(-7, 8)), axis=1)
    return image


def _encoded(rng: np.random.Generator, image: Image) -> Image:
    """Return the picture at few bits: reduced, in coarse blocks, with little colour, at times sharpened."""
    height, width = image.shape[:2]
    scale = rng.uniform(0.4, 1)
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    quality = int(np.exp(rng.uniform(np.log(8), np.log(80))))
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    small = cv2.imdecode(data, cv2.IMREAD_COLOR)
    result = cv2.resize(
        small, (width, height), interpolation=cv2.INTER_LINEAR if rng.random() < 0.7 else cv2.INTER_CUBIC
    )
    if rng.random() < 0.3:
        soft = cv2.GaussianBlur(result, (0, 0), 1.2)
        result = cv2.addWeighted(result, 1.8, soft, -0.8, 0)
    return np.asarray(result, np.uint8)
