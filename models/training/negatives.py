"""Draws pictures without a code that a detector easily mistakes for one; `KINDS` says which."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from models.training.emblems import logo, seal
from models.training.grids import circuit, grid
from models.training.keys import keyboard, piano
from models.training.prints import leaf, receipt
from models.training.rooms import face, room
from models.training.surfaces import between, blinds, brickwork, carpet, foliage, mesh, planks, striped
from models.training.textures import Image, random_colour

Draw = Callable[[np.random.Generator, int, int], Image]

#: How the kinds are drawn, and their share among the pictures.
KINDS: dict[str, tuple[Draw, float]] = {
    "carpet": (carpet, 1.0),
    "keyboard": (keyboard, 1.2),
    "piano": (piano, 0.8),
    "blinds": (blinds, 1.0),
    "stripes": (striped, 1.2),
    "brick": (brickwork, 1.0),
    "planks": (planks, 0.8),
    "mesh": (mesh, 0.8),
    "foliage": (foliage, 0.5),
    "text": (leaf, 1.0),
    "receipt": (receipt, 0.8),
    "logo": (logo, 1.2),
    "seal": (seal, 0.8),
    "grid": (grid, 1.2),
    "circuit": (circuit, 0.6),
    "face": (face, 1.2),
    "room": (room, 2.2),
}
_SHARES = np.array([share for _, share in KINDS.values()])
#: Kinds that fill the frame as they are; the others may also lie flat in perspective on something else.
_WHOLE = ("room", "face")


def draw_negative(rng: np.random.Generator, height: int, width: int, kind: str | None = None) -> Image:
    """Return a picture (h, w, 3), BGR, of a kind, or of a random one. Raises KeyError for an unknown kind."""
    kind = kind or str(rng.choice(list(KINDS), p=_SHARES / _SHARES.sum()))
    image = KINDS[kind][0](rng, height, width)
    if kind not in _WHOLE and rng.random() < 0.55:
        image = _lying(rng, image)
    if rng.random() < 0.75:  # few real things are as colourful as random colours
        grey = image.mean(2, keepdims=True)
        image = (grey + (image - grey) * rng.uniform(0, 0.6)).astype(np.uint8)
    return image


def _lying(rng: np.random.Generator, image: Image) -> Image:
    """Return the picture as an object that lies in perspective on another surface, near or far."""
    height, width = image.shape[:2]
    other = (carpet, blinds, brickwork, foliage, leaf, striped)[int(rng.integers(6))]
    if rng.random() < 0.5:
        ground = np.empty_like(image)
        ground[:] = random_colour(rng)
    else:
        ground = other(rng, height, width)
    scale = between(rng, 0.2, 1.3)
    if scale < 0.6:  # average first, because the warp only samples pixels
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    h, w = image.shape[:2]
    turn = rng.choice([rng.normal(0, 0.15), rng.uniform(-np.pi, np.pi)])
    corners = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) * scale / 2
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    target = corners @ spin + rng.uniform(0.2, 0.8, 2) * [width, height]
    target += rng.uniform(-0.15, 0.15, (4, 2)) * min(height, width) * scale
    source = np.array([[0, 0], [w, 0], [w, h], [0, h]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    warped = cv2.warpPerspective(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    cover = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(cover, np.round(target * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    shade = cv2.GaussianBlur(np.roll(cover, (4, 4), (0, 1)), (0, 0), 6)[..., None] / 255.0
    ground = ground * (1 - rng.uniform(0, 0.5) * shade)
    alpha = cover[..., None] / 255.0
    return (ground * (1 - alpha) + warped * alpha).astype(np.uint8)
