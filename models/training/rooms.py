"""Draws faces before a blurred background, and rooms and yards with furniture and people."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.training.emblems import logo
from models.training.keys import keyboard
from models.training.people import person, shaded
from models.training.prints import leaf
from models.training.surfaces import (
    between,
    blinds,
    brickwork,
    carpet,
    foliage,
    mesh,
    planks,
    striped,
)
from models.training.textures import Image, random_colour, smooth_noise

Draw = Callable[[np.random.Generator, int, int], Image]


def face(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return one to four people close to the camera, in front of something out of focus."""
    blur = between(rng, 0.5, 12)
    draw: tuple[Draw, ...] = (blinds, brickwork, foliage, leaf, mesh, striped, carpet)
    ground = draw[rng.integers(len(draw))](rng, height, width)
    image = cv2.GaussianBlur(ground, (0, 0), blur)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        tall = height * rng.uniform(1.4, 5)
        x = width * rng.uniform(0.15, 0.85)
        person(rng, image, x, height * rng.uniform(0.3, 0.6) + tall * 0.92, tall)
    return image


def room(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a room or a yard: walls and floor in perspective, furniture, things on walls, people."""
    image = np.empty((height, width, 3), np.uint8)
    horizon = int(height * rng.uniform(0.3, 0.75))
    image[:horizon] = _wall(rng, horizon, width)
    image[horizon:] = _floor(rng, height - horizon, width)
    if rng.random() < 0.5:  # a side wall
        at = width * rng.uniform(0.05, 0.4)
        points = np.array([[0, 0], [at, 0], [at, horizon], [0, height * rng.uniform(0.8, 1.1)]], np.int32)
        if rng.random() < 0.5:
            points[:, 0] = width - points[:, 0]
        cv2.fillPoly(image, [points], random_colour(rng, 60))
    for _ in range(int(rng.integers(1, 7))):  # on the walls
        w, h = (int(v) for v in np.exp(rng.uniform(np.log(12), np.log(max(14, width * 0.45)), 2)))
        x, y = int(rng.integers(-20, width)), int(rng.integers(-20, max(1, horizon - 10)))
        draw: tuple[Draw, ...] = (blinds, leaf, logo, _shelf, mesh, foliage, _screen)
        _hang(rng, image, draw[rng.integers(len(draw))](rng, max(8, h), max(8, w)), x, y)
    things = [
        (float(rng.uniform(horizon, height * 1.1)), int(rng.integers(2)))
        for _ in range(int(rng.integers(2, 9)))
    ]
    for foot, kind in sorted(things):
        near = (foot - horizon) / max(1, height - horizon)
        at = width * rng.uniform(0, 1)
        if kind:
            person(rng, image, at, foot, height * (0.2 + 0.75 * near) * rng.uniform(0.75, 1.1))
        else:
            _furniture(rng, image, at, foot, height * (0.08 + 0.45 * near) * rng.uniform(0.4, 1.2))
    return image


def _wall(rng: np.random.Generator, height: int, width: int) -> Image:
    if rng.random() < 0.3:
        return brickwork(rng, height, width)
    tone = np.array(random_colour(rng, 90), np.float32)
    return np.clip(tone + smooth_noise(rng, height, width, 150)[..., None] * 18, 0, 255).astype(np.uint8)


def _floor(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a floor whose pattern gets smaller with distance."""
    draw: tuple[Draw, ...] = (carpet, brickwork, striped, foliage, planks, planks)
    flat = draw[rng.integers(len(draw))](rng, max(32, height), width)
    source = np.array([[0, 0], [width, 0], [width, flat.shape[0]], [0, flat.shape[0]]], np.float32)
    inset = width * rng.uniform(0.1, 0.4)
    target = np.array([[inset, 0], [width - inset, 0], [width + inset, height], [-inset, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(
        flat, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )


def _hang(rng: np.random.Generator, image: Image, patch: Image, x: int, y: int) -> None:
    left, top = max(0, x), max(0, y)
    right, bottom = min(image.shape[1], x + patch.shape[1]), min(image.shape[0], y + patch.shape[0])
    if right - left < 6 or bottom - top < 6:
        return
    image[top:bottom, left:right] = patch[top - y : bottom - y, left - x : right - x]
    if rng.random() < 0.7:
        cv2.rectangle(image, (left, top), (right, bottom), random_colour(rng), int(rng.integers(1, 7)))


def _shelf(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return shelves with the backs of books and boxes."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 20, 120)
    rows = int(rng.integers(1, 6))
    pitch = max(8, height // rows)
    for base in range(pitch, height + pitch, pitch):
        x = 0
        while x < width:
            wide = int(np.clip(pitch * rng.uniform(0.05, 0.4), 2, 80))
            top = base - int(pitch * rng.uniform(0.5, 0.92))
            if rng.random() < 0.9:
                tone = random_colour(rng)
                cv2.rectangle(image, (x, top), (x + wide - 1, base - 3), tone, -1)
                for at in rng.uniform(0.1, 0.9, int(rng.integers(0, 3))):
                    line = int(top + (base - top) * at)
                    cv2.rectangle(
                        image, (x, line), (x + wide - 1, line + max(1, pitch // 14)), random_colour(rng), -1
                    )
            x += wide
        cv2.rectangle(image, (0, base - 3), (width, base), random_colour(rng, 40, 160), -1)
    return image


def _screen(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a monitor or laptop with text, a keyboard below it, or dark."""
    image = leaf(rng, height, width)
    if rng.random() < 0.3:
        image = (image * 0.25).astype(np.uint8)
    if rng.random() < 0.4 and height > 30:
        part = height // 3
        image[-part:] = keyboard(rng, part, width)
    return image


def _furniture(rng: np.random.Generator, image: Image, x: float, foot: float, size: float) -> None:
    """Draw a cupboard, table, chair, plant or box, in place."""
    tone = np.array(random_colour(rng, 20, 210), np.float32)
    w, h = size * rng.uniform(0.6, 2), size * rng.uniform(0.5, 1.6)
    a, b = (int(x - w / 2), int(foot - h)), (int(x + w / 2), int(foot))
    kind = rng.integers(4)
    if kind == 0:  # cupboard or drawers
        cv2.rectangle(image, a, b, shaded(tone, 1), -1)
        for row in np.linspace(a[1], b[1], int(rng.integers(2, 7))).astype(int):
            cv2.line(image, (a[0], int(row)), (b[0], int(row)), shaded(tone, 0.6), max(1, int(size * 0.02)))
            cv2.circle(image, (int(x), int(row + h * 0.08)), max(1, int(size * 0.03)), (200, 200, 200), -1)
    elif kind == 1:  # table or chair
        top = int(foot - h)
        cv2.rectangle(image, (a[0], top), (b[0], top + max(2, int(size * 0.08))), shaded(tone, 1), -1)
        for leg in np.linspace(a[0], b[0], int(rng.integers(2, 9))).astype(int):
            cv2.line(
                image,
                (int(leg), top),
                (int(leg), int(foot)),
                shaded(tone, 0.7),
                max(1, int(size * 0.04)),
                cv2.LINE_AA,
            )
    elif kind == 2:
        _hang(rng, image, foliage(rng, max(8, int(h)), max(8, int(w))), a[0], a[1])
    else:  # a box with a print
        _hang(rng, image, leaf(rng, max(8, int(h)), max(8, int(w))), a[0], a[1])
