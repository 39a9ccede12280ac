"""Draws cards with codes on canvases that record the number of the code at each pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from models.training.symbols import Symbol, draw_decoy, draw_symbol
from models.training.textures import (
    add_text,
    background,
    page,
    random_colour,
    words,
    write,
)

Image = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint8]


@dataclass(slots=True)
class Canvas:
    """Holds an unfinished image and, for each pixel, the number of the code at it (0: none)."""

    image: Image
    ids: Ids
    #: Class id of code number 1, 2, ...
    classes: list[int]
    #: Number of pixels of each code when it was put onto the canvas, before anything covered it.
    areas: dict[int, int] = field(default_factory=dict)

    @classmethod
    def over(cls, image: Image) -> Canvas:
        """Return a canvas that shows ``image`` and has no codes."""
        return cls(image, np.zeros(image.shape[:2], np.uint8), [])


def _inked(rng: np.random.Generator, modules: Image, *, flush: bool = False) -> tuple[Image, Image]:
    """Return the colours (h, w, 3) of a code or decoy, and the colour of its paper (3,)."""
    ink, paper = np.array(random_colour(rng, 0, 60)), np.array(random_colour(rng, 200))
    chance = rng.random()
    if flush and chance < 0.75:
        ink, paper = np.zeros(3, int), np.full(3, 255)
    elif chance < 0.25:  # strong colours with enough contrast
        ink, paper = np.array(random_colour(rng, 0, 150)), np.array(random_colour(rng, 150))
        if paper.mean() - ink.mean() < 60:
            paper = np.full(3, 245)
    if rng.random() < 0.10:
        ink, paper = paper, ink
    cover = (modules == 0)[..., None]
    return np.where(cover, ink, paper).astype(np.uint8), paper.astype(np.uint8)


def _enlarged(rng: np.random.Generator, symbol: Symbol, module_px: int) -> Image:
    """Return the modules enlarged to squares, at times to dots or with bleeding ink; 0 is ink."""
    large = np.repeat(np.repeat(symbol.modules, module_px, 0), module_px, 1)
    if symbol.linear:
        return large
    style = rng.random()
    if style < 0.08 and module_px >= 4:  # dots, as in dot peening and fancy QR codes
        y, x = np.mgrid[0 : large.shape[0], 0 : large.shape[1]] % module_px - (module_px - 1) / 2
        large = np.where(
            (large == 0) & (np.hypot(y, x) <= module_px * rng.uniform(0.4, 0.55)), 0, 255
        ).astype(np.uint8)
    elif style < 0.16 and module_px >= 4:
        element = np.ones((2, 2), np.uint8)
        large = (cv2.erode if rng.random() < 0.5 else cv2.dilate)(large, element)
    return large


def _emblem(rng: np.random.Generator, colours: Image) -> None:
    """Put a logo into the middle of a QR code, in place."""
    height, width = colours.shape[:2]
    reach = int(min(height, width) * rng.uniform(0.08, 0.15))
    y, x = height // 2, width // 2
    patch = background(rng, 2 * reach, 2 * reach)
    if rng.random() < 0.6:
        cv2.rectangle(
            patch, (0, 0), (2 * reach - 1, 2 * reach - 1), random_colour(rng, 200), max(1, reach // 6)
        )
    colours[y - reach : y + reach, x - reach : x + reach] = patch


def draw_tag(rng: np.random.Generator, module_px: int, *, flush: bool = False) -> Canvas:
    """Return one code with its quiet zone; linear codes often have their text below."""
    symbol = draw_symbol(rng)
    large = _enlarged(rng, symbol, module_px)
    colours, paper = _inked(rng, large, flush=flush)
    if symbol.class_id == 1 and min(symbol.modules.shape) >= 25 and rng.random() < 0.15:
        _emblem(rng, colours)
    low = 0 if flush and rng.random() < 0.7 else 1
    quiet = [int(module_px * rng.integers(low, 11 if symbol.class_id in (0, 4) else 5)) for _ in range(4)]
    if flush and rng.random() < 0.45:
        quiet = [0, 0, 0, 0] if rng.random() < 0.6 else [2 * module_px] * 4
    top, bottom, left, right = quiet
    caption = symbol.linear and rng.random() < 0.65
    text_px = int(max(10, large.shape[1] * rng.uniform(0.05, 0.14)))
    if caption:
        bottom += text_px + 6
    image = np.empty((large.shape[0] + top + bottom, large.shape[1] + left + right, 3), np.uint8)
    image[:] = paper
    canvas = Canvas.over(image)
    image[top : top + large.shape[0], left : left + large.shape[1]] = colours
    canvas.ids[top : top + large.shape[0], left : left + large.shape[1]] = 1
    canvas.classes = [symbol.class_id]
    if caption:
        ink = tuple(int(v) for v in (255 - paper.astype(int)))
        place = left + int(rng.uniform(0, 0.3) * large.shape[1]), top + large.shape[0] + text_px
        write(image, symbol.text[:30], *place, text_px, ink, rng)  # type: ignore[arg-type]
    return canvas


def paste(canvas: Canvas, part: Canvas, x: int, y: int) -> None:
    """Draw ``part`` onto ``canvas``, in place, and cut off what lies outside."""
    height, width = canvas.ids.shape
    left, top, right, bottom = (
        max(x, 0),
        max(y, 0),
        min(x + part.ids.shape[1], width),
        min(y + part.ids.shape[0], height),
    )
    if left >= right or top >= bottom:
        return
    source = np.s_[top - y : bottom - y, left - x : right - x]
    canvas.image[top:bottom, left:right] = part.image[source]
    ids = part.ids[source]
    canvas.ids[top:bottom, left:right] = renumbered(canvas, ids, part)


def renumbered(canvas: Canvas, ids: Ids, part: Canvas) -> Ids:
    """Add the codes of ``part`` to ``canvas``, in place; return ``ids`` with the numbers they get there."""
    known = len(canvas.classes)
    counts = np.bincount(ids.ravel(), minlength=len(part.classes) + 1)
    canvas.areas |= {known + number: int(count) for number, count in enumerate(counts) if number}
    canvas.classes += part.classes
    return np.where(ids > 0, ids + known, 0).astype(np.uint8)


def scaled(canvas: Canvas, scale: float) -> Canvas:
    """Return the canvas resized by ``scale``, to at least 4 by 4 pixels."""
    size = (max(4, round(canvas.ids.shape[1] * scale)), max(4, round(canvas.ids.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    ids = cv2.resize(canvas.ids, size, interpolation=cv2.INTER_NEAREST)
    return Canvas(cv2.resize(canvas.image, size, interpolation=way), ids, list(canvas.classes))


def rotated(canvas: Canvas, quarters: int) -> Canvas:
    """Return the canvas turned by ``quarters`` times 90 degrees."""
    if quarters % 4 == 0:
        return canvas
    turn = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)[quarters % 4 - 1]
    return Canvas(cv2.rotate(canvas.image, turn), cv2.rotate(canvas.ids, turn), list(canvas.classes))


def draw_card(rng: np.random.Generator, *, empty: bool) -> Canvas:
    """Return a card (label, leaflet or pack) with one to three codes, or without codes if ``empty``."""
    parts = []
    if not empty:
        parts = [draw_tag(rng, int(rng.integers(3, 8))) for _ in range(int(rng.choice([1, 1, 1, 2, 3])))]
        largest = max(max(part.ids.shape) for part in parts)
        parts = [scaled(part, min(1.0, 700 / largest)) for part in parts]
    elif rng.random() < 0.12:
        decoy = draw_decoy(rng)
        large = cv2.resize(
            decoy, None, fx=120 / decoy.shape[1], fy=120 / decoy.shape[1], interpolation=cv2.INTER_NEAREST
        )
        parts = [Canvas.over(_inked(rng, large)[0])]
    beside = rng.random() < 0.4
    spans = [part.ids.shape for part in parts] or [(int(rng.integers(80, 400)), int(rng.integers(80, 400)))]
    along, across = (1, 0) if beside else (0, 1)
    gap = int(rng.integers(4, 60))
    length = sum(span[along] + gap for span in spans) + gap
    breadth = max(span[across] for span in spans) + 2 * gap
    grow = rng.uniform(0, 1.3) if rng.random() < 0.6 else 0.0
    size = {along: length, across: int(breadth * (1 + grow))}
    height, width = size[0], size[1]
    look = rng.random()
    if look < 0.45 and parts:
        face = np.empty((height, width, 3), np.uint8)
        face[:] = parts[0].image[0, 0]
    else:
        face = page(rng, height, width) if look < 0.75 else background(rng, height, width)
    canvas = Canvas.over(face)
    if rng.random() < 0.6:
        ink = random_colour(rng, 0, 120)
        if grow > 0.2:
            left, top = (gap, breadth) if beside else (breadth, gap)
            add_text(face, rng, left, top, width - gap, height - gap, ink)
    at = gap
    for part in parts:
        slack = max(0, (breadth if rng.random() < 0.8 else size[across]) - part.ids.shape[across])
        aside = int(rng.uniform(0, 1) * slack)
        x, y = (at, aside) if beside else (aside, at)
        paste(canvas, part, x, y)
        at += part.ids.shape[along] + gap
    if rng.random() < 0.3:
        write(
            canvas.image,
            words(rng, 2),
            gap,
            max(14, gap),
            int(rng.integers(10, 30)),
            random_colour(rng, 0, 120),
            rng,
        )
    if rng.random() < 0.3:
        cv2.rectangle(
            canvas.image, (1, 1), (width - 2, height - 2), random_colour(rng), int(rng.integers(1, 6))
        )
    return canvas
