"""Draws rows of keys: computer keyboards, keypads and pianos."""

from __future__ import annotations

import string

import cv2
import numpy as np

from models.training.surfaces import between
from models.training.textures import Colour, Image, random_colour, smooth_noise, write

_LEGENDS = tuple(string.ascii_uppercase + string.digits + "+-*/=.,;<>#?!&%$[](){}")
_WIDE = ("Shift", "Enter", "Tab", "Ctrl", "Alt", "Caps", "Esc", "Fn", "Home", "End", "Del", "Space")


def keyboard(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a keyboard or keypad: caps with sloping sides and legends, in rows that are staggered or not."""
    key = between(rng, 14, 110)
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 0, 150) if rng.random() < 0.7 else random_colour(rng, 120)
    cap = random_colour(rng, 0, 90) if rng.random() < 0.55 else random_colour(rng, 130)
    special = cap
    if rng.random() < 0.4:
        blue, green, red = (int(v * rng.uniform(0.6, 1.3)) % 256 for v in cap)
        special = blue, green, red
    bright: Colour = (240, 240, 240)
    ink = (bright if sum(cap) < 384 else (30, 30, 30)) if rng.random() < 0.8 else random_colour(rng)
    gap = max(1, int(key * rng.uniform(0.04, 0.22)))
    slope = max(0, int(key * rng.choice([0.0, rng.uniform(0.05, 0.16)])))
    stagger = key * rng.choice([0.0, rng.uniform(0.2, 0.5)])
    size = max(6, int(key * rng.uniform(0.24, 0.5)))
    glow = rng.random() < 0.12
    place = rng.uniform(0.08, 0.4, 2)
    two = rng.random() < 0.3
    tall = key * rng.uniform(0.75, 1.15)
    for index in range(int(height / tall) + 2):
        x, y = -key * rng.uniform(0, 1) - stagger * (index % 4), index * tall - key / 2
        while x < width:
            span = key if rng.random() < 0.88 else key * rng.choice([1.5, 1.75, 2.25, 6.0])
            wide = span > key
            colour = special if wide else cap
            left, top = int(x + gap / 2), int(y + gap / 2)
            right, bottom = int(x + span - gap / 2), int(y + tall - gap / 2)
            _cap(image, left, top, right, bottom, colour, slope, rounded=key * 0.12)
            if rng.random() < 0.94:
                text = str(rng.choice(_WIDE if wide or rng.random() < 0.06 else _LEGENDS))
                at = int(left + (right - left) * place[0]), int(top + (bottom - top) * place[1] + size * 0.8)
                write(image, text, *at, size if len(text) == 1 else max(6, size // 2), ink, rng)
                if two and not wide:
                    other = int(left + (right - left) * 0.6), int(top + (bottom - top) * 0.85)
                    write(image, str(rng.choice(_LEGENDS)), *other, max(6, size * 2 // 3), ink, rng)
            x += span
    if glow:
        light = cv2.GaussianBlur(image, (0, 0), key / 6).astype(np.float32)
        image = np.clip(image * 0.6 + light * rng.uniform(0.5, 1.2), 0, 255).astype(np.uint8)
    return image


def _cap(
    image: Image, left: int, top: int, right: int, bottom: int, colour: Colour, slope: int, *, rounded: float
) -> None:
    """Draw one key: a dark side and a lighter face, both with round corners, in place."""
    dark = tuple(int(v * 0.62) for v in colour)
    for inset, tone in ((0, dark), (slope, colour)) if slope else ((0, colour),):
        a, b, c, d = left + inset, top + inset // 2, right - inset, bottom - inset - inset // 2
        radius = int(max(0, min(rounded, (c - a) / 3, (d - b) / 3)))
        cv2.rectangle(image, (a + radius, b), (c - radius, d), tone, -1)
        cv2.rectangle(image, (a, b + radius), (c, d - radius), tone, -1)
        for corner in (
            (a + radius, b + radius),
            (c - radius, b + radius),
            (a + radius, d - radius),
            (c - radius, d - radius),
        ):
            cv2.circle(image, corner, radius, tone, -1, cv2.LINE_AA)


def piano(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return the keys of a piano, seen from above: white keys, black keys in twos and threes, the case."""
    image = np.empty((height, width, 3), np.uint8)
    wood = np.array(random_colour(rng, 0, 120), np.float32)
    image[:] = np.clip(wood + smooth_noise(rng, height, width, 80)[..., None] * 12, 0, 255)
    pitch = between(rng, 8, 100)
    top = int(height * rng.uniform(-0.2, 0.4))
    length = int(min(height * 1.3, pitch * rng.uniform(3.5, 8)))
    ivory = np.array([rng.integers(195, 250), rng.integers(205, 252), rng.integers(210, 255)], np.float32)
    black: Colour = (int(rng.integers(5, 50)),) * 3
    gap = max(1, int(pitch * rng.uniform(0.03, 0.09)))
    first = int(rng.integers(7))
    shadow = tuple(float(v) for v in ivory * rng.uniform(0.2, 0.6))
    count = int(width / pitch) + 3
    start = -pitch * rng.uniform(0, 1)
    for index in range(count):
        x = start + index * pitch
        tone = tuple(float(v) for v in ivory * rng.uniform(0.9, 1.0))
        cv2.rectangle(image, (int(x), top), (int(x + pitch), top + length), shadow, -1)
        pressed = int(pitch * 0.15) if rng.random() < 0.04 else 0
        cv2.rectangle(image, (int(x), top), (int(x + pitch) - gap, top + length - pressed), tone, -1)
    reach, breadth = int(length * rng.uniform(0.55, 0.7)), pitch * rng.uniform(0.45, 0.65)
    for index in range(count):
        if (first + index) % 7 in (2, 6):  # none between E and F, and B and C
            continue
        x = start + (index + 1) * pitch - breadth / 2
        cv2.rectangle(image, (int(x), top), (int(x + breadth), top + reach), black, -1)
        gloss = tuple(min(255, v + int(rng.integers(15, 70))) for v in black)
        cv2.rectangle(
            image, (int(x + breadth * 0.2), top), (int(x + breadth * 0.8), top + int(reach * 0.92)), gloss, -1
        )
    if rng.random() < 0.5:  # felt and shade below the fallboard
        shade = np.ones((height, 1, 1), np.float32)
        low = max(0, top)
        fade = np.linspace(rng.uniform(0.2, 0.7), 1, max(1, length // 3))[: max(0, height - low)]
        shade[low : low + len(fade), 0, 0] = fade
        image = (image * shade).astype(np.uint8)
        cv2.rectangle(image, (0, top - 6), (width, top), random_colour(rng), -1)
    return image
