"""Draws logos, signs, stamps and seals."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.training.prints import sheet
from models.training.surfaces import between
from models.training.textures import Colour, Image, add_text, random_colour, smooth_noise, words, write

_HAN = "茶書印章大安福壽龍鳳山水金木火土日月東西南北國學會社長春夏秋冬"


@dataclass(frozen=True, slots=True)
class _Mark:
    """Where an emblem is, and how it looks."""

    middle: tuple[int, int]
    reach: float
    palette: list[Colour]
    colour: Colour
    #: Degrees.
    turn: float


def _rings(rng: np.random.Generator, image: Image, mark: _Mark) -> None:
    """Draw rings in each other, in place."""
    for share in np.linspace(1, rng.uniform(0.05, 0.4), int(rng.integers(2, 9))):
        cv2.circle(
            image,
            mark.middle,
            max(1, int(mark.reach * share)),
            mark.palette[rng.integers(len(mark.palette))],
            -1,
            cv2.LINE_AA,
        )


def _petals(rng: np.random.Generator, image: Image, mark: _Mark) -> None:
    """Draw petals or rays, in place."""
    count = int(rng.integers(3, 17))
    for index in range(count):
        angle = np.deg2rad(mark.turn + 360 * index / count)
        at = (
            int(mark.middle[0] + np.cos(angle) * mark.reach * 0.55),
            int(mark.middle[1] + np.sin(angle) * mark.reach * 0.55),
        )
        axes = (max(1, int(mark.reach * 0.45)), max(1, int(mark.reach * rng.uniform(0.05, 0.3))))
        cv2.ellipse(image, at, axes, np.rad2deg(angle), 0, 360, mark.colour, -1, cv2.LINE_AA)


def _polygons(rng: np.random.Generator, image: Image, mark: _Mark) -> None:
    """Draw polygons in each other, in place."""
    sides = int(rng.integers(3, 9))
    for share in (1.0, rng.uniform(0.5, 0.85), rng.uniform(0.2, 0.45)):
        angles = np.deg2rad(mark.turn) + np.arange(sides) * 2 * np.pi / sides
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * mark.reach * share + np.array(mark.middle)
        cv2.fillPoly(
            image, [points.astype(np.int32)], mark.palette[rng.integers(len(mark.palette))], cv2.LINE_AA
        )


def _letters(rng: np.random.Generator, image: Image, mark: _Mark) -> None:
    """Draw letters in a rectangle, in place."""
    corner = (int(mark.middle[0] - mark.reach), int(mark.middle[1] - mark.reach * 0.7))
    other = (int(mark.middle[0] + mark.reach), int(mark.middle[1] + mark.reach * 0.7))
    cv2.rectangle(image, corner, other, mark.colour, -1)
    ink: Colour = (255, 255, 255) if sum(mark.colour) < 384 else (10, 10, 10)
    write(
        image,
        words(rng, 1)[:4].upper(),
        corner[0] + int(mark.reach * 0.2),
        mark.middle[1] + int(mark.reach * 0.35),
        max(8, int(mark.reach * 0.9)),
        ink,
        rng,
    )


def _squares(rng: np.random.Generator, image: Image, mark: _Mark) -> None:
    """Draw a few large squares, as in the marks of firms, in place."""
    count = int(rng.integers(2, 5))
    cell = 2 * mark.reach / count
    for row, column in np.ndindex(count, count):
        if rng.random() < 0.7:
            a = (
                int(mark.middle[0] - mark.reach + column * cell),
                int(mark.middle[1] - mark.reach + row * cell),
            )
            b = (int(a[0] + cell * rng.uniform(0.6, 1)), int(a[1] + cell * rng.uniform(0.6, 1)))
            cv2.rectangle(image, a, b, mark.palette[rng.integers(len(mark.palette))], -1)


def _strokes(rng: np.random.Generator, image: Image, mark: _Mark) -> None:
    """Draw mirrored strokes, in place."""
    points = rng.normal(0, mark.reach * 0.6, (int(rng.integers(3, 8)), 2))
    for side in (1, -1):
        path = (points * [side, 1] + np.array(mark.middle)).astype(np.int32)
        cv2.polylines(
            image, [path], False, mark.colour, max(1, int(mark.reach * rng.uniform(0.03, 0.25))), cv2.LINE_AA
        )


_EMBLEMS = (_rings, _petals, _polygons, _letters, _squares, _strokes)


def logo(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a logo, sign or icon: a few bold shapes in few colours, with symmetry, and a name."""
    image = sheet(rng, height, width)
    if rng.random() < 0.6:
        image[:] = random_colour(rng)
    palette = [random_colour(rng, 0, 160), random_colour(rng), (255, 255, 255), (20, 20, 20)]
    for _ in range(int(rng.choice([1, 1, 2, 4, 9]))):
        x, y = (rng.uniform(0.2, 0.8, 2) * [width, height]).astype(int)
        reach = between(rng, 10, min(height, width) * 0.5)
        kind = rng.integers(len(_EMBLEMS))
        colour = palette[rng.integers(len(palette))]
        _EMBLEMS[kind](rng, image, _Mark((int(x), int(y)), reach, palette, colour, rng.uniform(0, 360)))
        if rng.random() < 0.6:
            size = max(8, int(reach * rng.uniform(0.2, 0.9)))
            write(
                image,
                words(rng, 1),
                int(x - reach),
                int(y + reach + size),
                size,
                palette[rng.integers(4)],
                rng,
            )
    return image


def seal(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return paper with stamps and seals: rings with writing, square seals of dense strokes, wax."""
    image = sheet(rng, height, width)
    if rng.random() < 0.6:
        add_text(image, rng, int(width * 0.05), 0, width, height, random_colour(rng, 0, 120))
    for _ in range(int(rng.integers(1, 4))):
        reach = between(rng, 16, min(height, width) * 0.48)
        x, y = rng.uniform(0.1, 0.9, 2) * [width, height]
        layer = np.zeros((height, width), np.uint8)
        (_round_seal if rng.random() < 0.55 else _square_seal)(rng, layer, int(x), int(y), reach)
        matrix = cv2.getRotationMatrix2D((float(x), float(y)), float(rng.normal(0, 25)), 1)
        layer = cv2.warpAffine(layer, matrix, (width, height))
        wear = np.clip(
            smooth_noise(rng, height, width, rng.uniform(1.5, 12)) * rng.uniform(0, 3)
            + rng.uniform(0.5, 1.4),
            0,
            1,
        )
        alpha = (layer / 255.0 * wear * rng.uniform(0.5, 1))[..., None]
        ink = np.array([rng.integers(0, 90), rng.integers(0, 70), rng.integers(120, 240)], np.float32)
        if rng.random() < 0.4:
            ink = np.array(random_colour(rng, 0, 170), np.float32)
        image = (image * (1 - alpha) + ink * alpha).astype(np.uint8)
    return image


def _round_seal(rng: np.random.Generator, layer: Image, x: int, y: int, reach: float) -> None:
    for share in (1.0, rng.uniform(0.86, 0.95), rng.uniform(0.5, 0.7)):
        if share == 1.0 or rng.random() < 0.7:
            cv2.circle(
                layer,
                (x, y),
                int(reach * share),
                255,
                max(1, int(reach * rng.uniform(0.015, 0.08))),
                cv2.LINE_AA,
            )
    letters = words(rng, 3).upper()[: int(rng.integers(8, 26))]
    size = reach * rng.uniform(0.14, 0.24)
    for index, letter in enumerate(letters):  # on the ring
        angle = np.deg2rad(150 + 240 * index / max(1, len(letters) - 1))
        at = x + np.cos(angle) * reach * 0.76, y + np.sin(angle) * reach * 0.76
        cv2.putText(
            layer,
            letter,
            (int(at[0] - size / 3), int(at[1] + size / 3)),
            cv2.FONT_HERSHEY_SIMPLEX,
            size / 26,
            255,
            max(1, int(size / 9)),
            cv2.LINE_AA,
        )
    if rng.random() < 0.5:
        points = int(rng.integers(4, 9))
        angles = np.arange(2 * points) * np.pi / points - np.pi / 2
        radii = np.where(np.arange(2 * points) % 2, 0.16, 0.38) * reach
        star = np.stack([x + np.cos(angles) * radii, y + np.sin(angles) * radii], 1).astype(np.int32)
        cv2.fillPoly(layer, [star], 255, cv2.LINE_AA)
    else:
        text = f"{rng.integers(1, 32)}.{rng.integers(1, 13)}.{rng.integers(1990, 2030)}"
        cv2.putText(
            layer,
            text,
            (int(x - reach * 0.5), int(y + reach * 0.1)),
            cv2.FONT_HERSHEY_DUPLEX,
            reach / 110,
            255,
            max(1, int(reach / 40)),
            cv2.LINE_AA,
        )


def _square_seal(rng: np.random.Generator, layer: Image, x: int, y: int, reach: float) -> None:
    """Draw signs in a square frame, at times white on the filled square, in place."""
    count = int(rng.integers(1, 4))
    filled = rng.random() < 0.4
    corner, other = (int(x - reach * 0.8), int(y - reach * 0.8)), (int(x + reach * 0.8), int(y + reach * 0.8))
    cv2.rectangle(layer, corner, other, 255, -1 if filled else max(2, int(reach * 0.07)))
    cell = reach * 1.5 / count
    face = cv2.FontFace("uni")
    for row, column in np.ndindex(count, count):
        at = (
            int(corner[0] + reach * 0.05 + column * cell),
            int(corner[1] + reach * 0.03 + (row + 0.9) * cell),
        )
        board = cv2.cvtColor(layer, cv2.COLOR_GRAY2BGR)
        tone = (0, 0, 0) if filled else (255, 255, 255)
        cv2.putText(board, str(rng.choice(list(_HAN))), at, tone, face, max(6, int(cell * 0.86)), 700)
        layer[:] = board[..., 0]
