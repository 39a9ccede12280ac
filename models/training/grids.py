"""Draws what is ruled in fields or lines: boards, puzzles, tables, circuit boards and music."""

from __future__ import annotations

import string
from dataclasses import dataclass

import cv2
import numpy as np

from models.training.prints import sheet
from models.training.surfaces import between
from models.training.textures import Colour, Image, random_colour, smooth_noise, words, write


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a grid: opposite corners, length of a side, colours, and its number."""

    a: tuple[int, int]
    b: tuple[int, int]
    span: float
    dark: Colour
    light: Colour
    place: tuple[int, int]
    count: tuple[int, int]

    @property
    def middle(self) -> tuple[int, int]:
        """Its centre."""
        return (self.a[0] + self.b[0]) // 2, (self.a[1] + self.b[1]) // 2


def _board(rng: np.random.Generator, image: Image, field: _Field) -> None:
    """Draw a field of a board, at times with a piece, in place."""
    cv2.rectangle(
        image,
        field.a,
        (field.b[0] - 1, field.b[1] - 1),
        field.dark if (field.place[0] + field.place[1]) % 2 else field.light,
        -1,
    )
    if rng.random() < 0.08:
        cv2.circle(image, field.middle, int(field.span * 0.35), random_colour(rng), -1, cv2.LINE_AA)


def _crossword(rng: np.random.Generator, image: Image, field: _Field) -> None:
    """Draw a field of a crossword, shaded as its mirror image is, in place."""
    key = min(
        field.place[0] * field.count[1] + field.place[1],
        field.count[0] * field.count[1] - 1 - field.place[0] * field.count[1] - field.place[1],
    )
    shaded = (np.sin(key * 78.233 + field.count[0]) * 43758.5) % 1 < 0.22
    cv2.rectangle(image, field.a, field.b, field.dark, -1 if shaded else 1)
    if not shaded and rng.random() < 0.4 and field.span > 9:
        write(
            image,
            str(rng.choice(list(string.ascii_uppercase))),
            field.a[0] + int(field.span * 0.25),
            field.b[1] - int(field.span * 0.2),
            int(field.span * 0.7),
            field.dark,
            rng,
        )


def _sudoku(rng: np.random.Generator, image: Image, field: _Field) -> None:
    """Draw a field of a sudoku, in place."""
    cv2.rectangle(
        image, field.a, field.b, field.dark, 2 if field.place[0] % 3 == 0 and field.place[1] % 3 == 0 else 1
    )
    if rng.random() < 0.35 and field.span > 9:
        write(
            image,
            str(rng.integers(1, 10)),
            field.a[0] + int(field.span * 0.3),
            field.b[1] - int(field.span * 0.2),
            int(field.span * 0.7),
            field.dark,
            rng,
        )


def _table(rng: np.random.Generator, image: Image, field: _Field) -> None:
    """Draw a field of a table or calendar, in place."""
    if rng.random() < 0.9:
        cv2.rectangle(image, field.a, field.b, field.dark, 1)
    write(
        image,
        str(rng.integers(0, 999)),
        field.a[0] + 2,
        field.b[1] - int(field.span * 0.3),
        max(7, int(field.span * 0.35)),
        field.dark,
        rng,
    )


def _disc(rng: np.random.Generator, image: Image, field: _Field) -> None:
    """Draw a disc, coin, button, egg or pill, in place."""
    size = int(field.span * rng.uniform(0.3, 0.48))
    tone = tuple(int(np.clip(v + rng.normal(0, 20), 0, 255)) for v in field.dark)
    cv2.circle(image, field.middle, size, tone, -1, cv2.LINE_AA)
    cv2.circle(
        image, field.middle, int(size * rng.uniform(0.5, 0.9)), field.light, max(1, size // 8), cv2.LINE_AA
    )
    if rng.random() < 0.5:
        cv2.ellipse(
            image,
            field.middle,
            (size // 2, max(1, size // 4)),
            float(rng.uniform(0, 180)),
            0,
            360,
            random_colour(rng),
            -1,
            cv2.LINE_AA,
        )


_FIELDS = (_board, _crossword, _sudoku, _table, _disc)


def grid(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a chessboard, crossword, sudoku, calendar, table of figures, calibration target or dominoes."""
    image = sheet(rng, height, width)
    kind = rng.integers(5)
    rows, columns = (int(v) for v in rng.integers(4, 16, 2))
    if kind in (0, 1, 2):
        columns = rows
    span = min(height / rows, width / columns) * rng.uniform(0.6, 1.05)
    left, top = (width - span * columns) / 2, (height - span * rows) / 2
    dark, light = random_colour(rng, 0, 110), random_colour(rng, 180)
    for row, column in np.ndindex(rows, columns):
        corner = (int(left + column * span), int(top + row * span))
        other = (int(left + (column + 1) * span), int(top + (row + 1) * span))
        field = _Field(corner, other, span, dark, light, (row, column), (rows, columns))
        _FIELDS[kind](rng, image, field)
    return image


def circuit(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a circuit board or a score: many parallel tracks or staves with pads, chips or notes."""
    if rng.random() < 0.35:
        return _music(rng, height, width)
    board = np.array([rng.integers(20, 110), rng.integers(50, 140), rng.integers(0, 70)], np.float32)
    image = np.clip(board + smooth_noise(rng, height, width, 60)[..., None] * 15, 0, 255).astype(np.uint8)
    track = tuple(float(v) for v in np.clip(board * rng.uniform(1.1, 1.7) + 10, 0, 255))
    step = between(rng, 4, 16)
    for _ in range(int(rng.integers(10, 50))):
        points = [rng.uniform(0, 1, 2) * [width, height]]
        for _ in range(3):
            angle = rng.integers(8) * np.pi / 4
            points.append(points[-1] + np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(20, 160))
        for index in range(int(rng.integers(1, 7))):
            path = (np.array(points) + index * step).astype(np.int32)
            cv2.polylines(image, [path], False, track, max(1, int(step * 0.4)), cv2.LINE_AA)
    _chips(rng, image, step)
    return image


def _chips(rng: np.random.Generator, image: Image, step: float) -> None:
    """Draw parts with legs and letters on them, in place."""
    height, width = image.shape[:2]
    for _ in range(int(rng.integers(6, 50))):
        x, y = (int(v) for v in rng.uniform(0, 1, 2) * [width, height])
        w, h = (int(v) for v in np.exp(rng.uniform(np.log(6), np.log(90), 2)))
        legs = max(3, int(step * 0.8))
        for at in range(0, max(w, h), legs * 2):
            metal = (190, 195, 200)
            if at < w:
                cv2.rectangle(image, (x + at, y - legs), (x + at + legs, y + h + legs), metal, -1)
            elif at < h:
                cv2.rectangle(image, (x - legs, y + at), (x + w + legs, y + at + legs), metal, -1)
        cv2.rectangle(image, (x, y), (x + w, y + h), random_colour(rng, 10, 90), -1)
        if w > 20:
            write(
                image,
                words(rng, 1)[:6].upper(),
                x + 2,
                y + h // 2 + 4,
                max(6, min(h // 2, w // 4)),
                (200, 200, 200),
                rng,
            )


def _music(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a sheet of music."""
    image = sheet(rng, height, width)
    pitch = between(rng, 3, 22)
    for y in np.arange(pitch * 3, height, pitch * rng.uniform(9, 13)):
        for index in range(5):
            cv2.line(
                image,
                (0, int(y + index * pitch)),
                (width, int(y + index * pitch)),
                (20, 20, 20),
                1,
                cv2.LINE_AA,
            )
        for x in np.arange(pitch * 4, width, pitch * rng.uniform(2, 5)):
            at = (int(x), int(y + rng.integers(-1, 10) * pitch / 2))
            cv2.ellipse(
                image,
                at,
                (max(1, int(pitch * 0.6)), max(1, int(pitch * 0.45))),
                -20,
                0,
                360,
                (10, 10, 10),
                -1,
                cv2.LINE_AA,
            )
            cv2.line(
                image,
                (at[0] + int(pitch * 0.5), at[1]),
                (at[0] + int(pitch * 0.5), int(at[1] - pitch * 3.4)),
                (10, 10, 10),
                max(1, int(pitch * 0.15)),
                cv2.LINE_AA,
            )
    return image
