"""Draws paper with text on it: pages, signs and receipts."""

from __future__ import annotations

import string

import cv2
import numpy as np

from models.training.surfaces import between, tinted
from models.training.textures import (
    Colour,
    Image,
    page,
    random_colour,
    smooth_noise,
    words,
)

_SUMS = ("TOTAL", "SUM", "VISA", "CASH", "TVA", "MwSt")


def sheet(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return paper: nearly white or tinted, slightly uneven."""
    tone = np.array(
        random_colour(rng, 170) if rng.random() < 0.3 else (int(rng.integers(205, 256)),) * 3, np.float32
    )
    uneven = smooth_noise(rng, height, width, max(height, width) / rng.uniform(1, 6)) * rng.uniform(0, 18)
    return np.clip(tone + uneven[..., None], 0, 255).astype(np.uint8)


def receipt(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a receipt: narrow lines of articles and prices, rules of dashes or stars, a large total."""
    image = sheet(rng, height, width)
    size = int(np.clip(between(rng, 7, 34), 7, height // 6 + 8))
    grey = int(rng.integers(10, 110))
    ink: Colour = (grey, grey, int(np.clip(grey + rng.integers(-10, 40), 0, 255)))
    left, right = int(width * rng.uniform(0.02, 0.15)), int(width * rng.uniform(0.8, 0.97))
    pitch = size * rng.uniform(1.1, 1.5)
    font = int(rng.choice([cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX]))
    scale = size / (16 if font == cv2.FONT_HERSHEY_PLAIN else 32)

    def line(text: str, x: int, y: float, factor: float = 1.0) -> None:
        weight = 2 if factor > 1.2 or size > 20 else 1
        cv2.putText(image, text, (x, int(y)), font, scale * factor, ink, weight, cv2.LINE_AA)

    y = float(rng.uniform(-size, size * 2))
    while y < height + size:
        chance = rng.random()
        if chance < 0.62:
            count = f"{rng.integers(1, 9)} x " if rng.random() < 0.4 else ""
            line(count + words(rng, int(rng.integers(1, 4)))[:22], left, y)
            price = f"{rng.integers(0, 200)}.{rng.integers(0, 100):02d}"
            line(price, right - int(size * 0.62 * len(price)), y)
        elif chance < 0.76:
            line(str(rng.choice(list("-=*_."))) * int((right - left) / max(3, size * 0.55)), left, y)
        elif chance < 0.86:
            line(
                f"{rng.choice(_SUMS)} {rng.integers(1, 900)}.{rng.integers(0, 100):02d}",
                left,
                y + size * 0.4,
                1.5,
            )
            y += size * 0.6
        elif chance < 0.94:
            line("".join(rng.choice(list(string.digits + " /:-"), int(rng.integers(8, 24)))), left, y)
        else:
            y += size * rng.uniform(0.5, 2)
        y += pitch
    if rng.random() < 0.5:  # folds
        fold = smooth_noise(rng, height, width, max(height, width) / rng.uniform(2, 6))
        image = np.clip(image * (1 + 0.35 * np.gradient(fold, axis=0)[..., None] * 20), 0, 255).astype(
            np.uint8
        )
    return image


def leaf(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a page of text, a newspaper or a sign, alone or lying on something."""
    ground = page(rng, height, width)
    if rng.random() < 0.5:
        return ground
    under = tinted(rng, 0.5 + 0.5 * smooth_noise(rng, height, width, between(rng, 4, 200)))
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    target = corners * rng.uniform(0.5, 0.95) + rng.normal(0, 0.08, (4, 2)) * [width, height]
    target = (target + rng.uniform(0, 0.25, 2) * [width, height]).astype(np.float32)
    matrix = cv2.getPerspectiveTransform(corners, target)
    cover = (
        cv2.warpPerspective(np.full((height, width), 255, np.uint8), matrix, (width, height))[..., None]
        / 255.0
    )
    return (under * (1 - cover) + cv2.warpPerspective(ground, matrix, (width, height)) * cover).astype(
        np.uint8
    )
