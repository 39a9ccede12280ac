"""Synthetic photographs: codes on cards, cards in front of things, seen through a poor camera.

Where each code ends up is not computed but seen: an image of code numbers goes through the very same warps,
and the box of a code is the extent of its number in the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from models.training.symbols import Symbol, draw_decoy, draw_symbol
from models.training.textures import (
    add_text,
    background,
    bricks,
    clouds,
    grain,
    lattice,
    page,
    random_colour,
    smooth_noise,
    stripes,
    weave,
    words,
    write,
)

Image = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint8]
#: An image in linear arithmetic: float, 0..255, but for what is clipped later.
Light = npt.NDArray[np.float32]

#: A code of which less is seen is neither wanted nor held against the detector.
_MIN_VISIBLE = 0.65
#: Shorter sides below this many scene pixels cannot be told from texture.
_MIN_SIDE_PX = 9.0
#: Standard deviation of the pixels below which nobody sees the code either.
_MIN_CONTRAST = 5.0
_KINDS = ("flush", "page", "photo", "empty")
_KIND_SHARES = (0.16, 0.15, 0.50, 0.19)


@dataclass(frozen=True, slots=True)
class Scene:
    """An image (h, w, 3), BGR, and its codes: class ids (n,), boxes (n, 4) as x1 y1 x2 y2 in pixels.

    A class id of -1 marks what is to be ignored: hardly visible codes.
    """

    image: Image
    class_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]


@dataclass(slots=True)
class _Canvas:
    """An image under work and, per pixel, the number of the code that it belongs to (0: none)."""

    image: Image
    ids: Ids
    #: Class id of code number 1, 2, ...
    classes: list[int]
    #: Pixels of the codes when they came onto the canvas, before anything lay on top of them.
    areas: dict[int, int] = field(default_factory=dict)

    @classmethod
    def over(cls, image: Image) -> _Canvas:
        return cls(image, np.zeros(image.shape[:2], np.uint8), [])


def draw_scene(seed: int, side: int = 512, kind: str | None = None) -> Scene:
    """Return scene number ``seed``; its longer side is ``side`` pixels, but flush ones may be smaller."""
    rng = np.random.default_rng([0xC0DE, seed])
    kind = kind or str(rng.choice(_KINDS, p=_KIND_SHARES))
    if kind == "flush":
        canvas = _flush(rng, side)
    elif kind == "texture":
        canvas = _texture(rng, side)
    else:
        aspect = float(rng.choice([1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16, rng.uniform(0.5, 2)]))
        width, height = (side, int(side / aspect)) if aspect >= 1 else (int(side * aspect), side)
        canvas = (
            _page(rng, height, width) if kind == "page" else _photo(rng, height, width, empty=kind == "empty")
        )
    if kind != "flush":
        _obstruct(rng, canvas)
    canvas.image = _expose(rng, canvas.image, kind)
    return _labelled(canvas)


# -- cards: flat artwork with codes ------------------------------------------------------------------


def _inked(rng: np.random.Generator, modules: Image, *, flush: bool = False) -> tuple[Image, Image]:
    """Return a code's or decoy's colours (h, w, 3) and its paper colour (3,)."""
    ink, paper = np.array(random_colour(rng, 0, 60)), np.array(random_colour(rng, 200))
    chance = rng.random()
    if flush and chance < 0.75:
        ink, paper = np.zeros(3, int), np.full(3, 255)
    elif chance < 0.25:  # strong colours, with contrast kept
        ink, paper = np.array(random_colour(rng, 0, 150)), np.array(random_colour(rng, 150))
        if paper.mean() - ink.mean() < 60:
            paper = np.full(3, 245)
    if rng.random() < 0.10:
        ink, paper = paper, ink
    cover = (modules == 0)[..., None]
    return np.where(cover, ink, paper).astype(np.uint8), paper.astype(np.uint8)


def _enlarged(rng: np.random.Generator, symbol: Symbol, module_px: int) -> Image:
    """Return modules as squares, at times as dots or with bleeding ink; 0 is ink."""
    large = np.repeat(np.repeat(symbol.modules, module_px, 0), module_px, 1)
    if symbol.linear:
        return large
    style = rng.random()
    if style < 0.08 and module_px >= 4:  # dots, as of dot peening and fancy QR codes
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


def _tag(rng: np.random.Generator, module_px: int, *, flush: bool = False) -> _Canvas:
    """Return one code with its quiet zone and, for linear ones, its text below."""
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
    canvas = _Canvas.over(image)
    image[top : top + large.shape[0], left : left + large.shape[1]] = colours
    canvas.ids[top : top + large.shape[0], left : left + large.shape[1]] = 1
    canvas.classes = [symbol.class_id]
    if caption:
        ink = tuple(int(v) for v in (255 - paper.astype(int)))
        place = left + int(rng.uniform(0, 0.3) * large.shape[1]), top + large.shape[0] + text_px
        write(image, symbol.text[:30], *place, text_px, ink, rng)  # type: ignore[arg-type]
    return canvas


def _paste(canvas: _Canvas, part: _Canvas, x: int, y: int) -> None:
    """Put a canvas onto another, in place; what hangs over is cut off."""
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
    canvas.ids[top:bottom, left:right] = _renumbered(canvas, ids, part)


def _renumbered(canvas: _Canvas, ids: Ids, part: _Canvas) -> Ids:
    """Return a part's ids as they count on the canvas, which takes note of the new codes."""
    known = len(canvas.classes)
    counts = np.bincount(ids.ravel(), minlength=len(part.classes) + 1)
    canvas.areas |= {known + number: int(count) for number, count in enumerate(counts) if number}
    canvas.classes += part.classes
    return np.where(ids > 0, ids + known, 0).astype(np.uint8)


def _scaled(canvas: _Canvas, scale: float) -> _Canvas:
    size = (max(4, round(canvas.ids.shape[1] * scale)), max(4, round(canvas.ids.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    ids = cv2.resize(canvas.ids, size, interpolation=cv2.INTER_NEAREST)
    return _Canvas(cv2.resize(canvas.image, size, interpolation=way), ids, list(canvas.classes))


def _rotated(canvas: _Canvas, quarters: int) -> _Canvas:
    if quarters % 4 == 0:
        return canvas
    turn = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)[quarters % 4 - 1]
    return _Canvas(cv2.rotate(canvas.image, turn), cv2.rotate(canvas.ids, turn), list(canvas.classes))


def _card(rng: np.random.Generator, *, empty: bool) -> _Canvas:
    """Return a label, a leaflet, a pack: artwork, mostly around one to three codes."""
    parts = []
    if not empty:
        parts = [_tag(rng, int(rng.integers(3, 8))) for _ in range(int(rng.choice([1, 1, 1, 2, 3])))]
        largest = max(max(part.ids.shape) for part in parts)
        parts = [_scaled(part, min(1.0, 700 / largest)) for part in parts]
    elif rng.random() < 0.12:
        decoy = draw_decoy(rng)
        large = cv2.resize(
            decoy, None, fx=120 / decoy.shape[1], fy=120 / decoy.shape[1], interpolation=cv2.INTER_NEAREST
        )
        parts = [_Canvas.over(_inked(rng, large)[0])]
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
    canvas = _Canvas.over(face)
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
        _paste(canvas, part, x, y)
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


# -- the three kinds of scene ------------------------------------------------------------------------


def _flush(rng: np.random.Generator, side: int) -> _Canvas:
    """Return a code that is the whole image, as encoders write it and croppers leave it."""
    module_px = int(rng.choice([1, 2, 3, 4, 5, 6, 8, 10], p=[0.08, 0.14, 0.18, 0.18, 0.14, 0.12, 0.10, 0.06]))
    canvas = _tag(rng, module_px, flush=True)
    if rng.random() < 0.15:  # several, as a sheet of labels
        others = [canvas, *(_tag(rng, module_px, flush=True) for _ in range(int(rng.integers(1, 4))))]
        gap = int(rng.integers(4, 40))
        width = max(o.ids.shape[1] for o in others) + 2 * gap
        sheet = _Canvas.over(
            np.full((sum(o.ids.shape[0] + gap for o in others) + gap, width, 3), 255, np.uint8)
        )
        y = gap
        for other in others:
            _paste(sheet, other, gap, y)
            y += other.ids.shape[0] + gap
        canvas = sheet
    canvas = _rotated(canvas, int(rng.choice([0, 1, 2, 3], p=[0.79, 0.09, 0.05, 0.07])))
    longest = max(canvas.ids.shape)
    if longest > side:
        canvas = _scaled(canvas, side / longest)
    if rng.random() < 0.3:  # not quite straight, not quite flat
        margin = int(max(canvas.ids.shape) * rng.uniform(0.02, 0.15)) + 1
        size = (canvas.ids.shape[0] + 2 * margin, canvas.ids.shape[1] + 2 * margin)
        ground = np.empty((*size, 3), np.uint8)
        ground[:] = random_colour(rng, 215) if rng.random() < 0.7 else random_colour(rng)
        under = _Canvas.over(ground)
        _place(
            rng,
            under,
            canvas,
            1.0,
            tilt=0.10,
            angle=rng.normal(0, 6),
            middle=(size[1] / 2, size[0] / 2),
            lit=False,
        )
        canvas = under
    return canvas


def _texture(rng: np.random.Generator, side: int) -> _Canvas:
    """Return nothing but a surface: fine patterns from edge to edge are easily taken for dense codes."""
    height = int(side * rng.choice([1.0, 0.75, 0.5625]))
    draw = (grain, weave, weave, stripes, lattice, bricks)[int(rng.integers(6))]
    image = draw(rng, height, side)
    if rng.random() < 0.3:  # two surfaces that meet, as a shoe on a carpet
        other = draw(rng, height, side)
        edge = np.zeros((height, side), np.uint8)
        points = (rng.uniform(-0.3, 1.3, (5, 2)) * np.array([side, height])).astype(np.int32)
        cv2.fillPoly(edge, [cv2.convexHull(points)], 255)
        image = np.where(edge[..., None] > 0, other, image)
    return _Canvas.over(image)


def _page(rng: np.random.Generator, height: int, width: int) -> _Canvas:
    """Return a screenshot or a scan with codes on it."""
    canvas = _Canvas.over(page(rng, height, width))
    for _ in range(int(rng.integers(1, 6))):
        part = _rotated(_tag(rng, 4), int(rng.choice([0, 1, 2, 3], p=[0.8, 0.08, 0.04, 0.08])))
        target = side_px(rng, 26, max(height, width) * 0.6)
        part = _scaled(part, target / max(part.ids.shape))
        for _ in range(6):
            x = int(rng.integers(0, max(1, width - part.ids.shape[1])))
            y = int(rng.integers(0, max(1, height - part.ids.shape[0])))
            if not canvas.ids[y : y + part.ids.shape[0], x : x + part.ids.shape[1]].any():
                _paste(canvas, part, x, y)
                break
    return canvas


def _photo(rng: np.random.Generator, height: int, width: int, *, empty: bool) -> _Canvas:
    """Return cards in front of a background; without codes if ``empty``."""
    canvas = _Canvas.over(background(rng, height, width))
    count = int(rng.choice([1, 1, 1, 2, 3, 5])) if not empty else int(rng.integers(0, 4))
    for _ in range(count):
        card = _card(rng, empty=empty or rng.random() < 0.12)
        if rng.random() < 0.4:
            card = _bent(rng, card)
        largest = max(height, width) * (1.5 if count == 1 else 0.8)
        scale = side_px(rng, 50, largest) / max(card.ids.shape)
        angle = rng.choice(
            [rng.normal(0, 9), rng.uniform(-180, 180), 90 * rng.integers(4) + rng.normal(0, 5)],
            p=[0.6, 0.18, 0.22],
        )
        middle = (width * rng.uniform(0.2, 0.8), height * rng.uniform(0.2, 0.8))
        if count == 1 and rng.random() < 0.5 and card.classes:
            # Cameras are pointed at codes: the first one is in the middle and of a fair size.
            ys, xs = np.nonzero(card.ids == 1)
            if len(xs):
                span = max(np.ptp(xs), np.ptp(ys)) + 1
                scale = max(height, width) * rng.uniform(0.25, 0.95) / span
                off = np.array([xs.mean() - card.ids.shape[1] / 2, ys.mean() - card.ids.shape[0] / 2]) * scale
                turn = np.deg2rad(angle)
                off = np.array(
                    [
                        off[0] * np.cos(turn) + off[1] * np.sin(turn),
                        -off[0] * np.sin(turn) + off[1] * np.cos(turn),
                    ]
                )
                middle = (width * rng.uniform(0.4, 0.6) - off[0], height * rng.uniform(0.4, 0.6) - off[1])
        _place(rng, canvas, card, scale, tilt=0.22, angle=float(angle), middle=middle, lit=True)
    return canvas


def side_px(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a length; every octave between the two is as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low * 1.01, high)))))


def _place(
    rng: np.random.Generator,
    canvas: _Canvas,
    card: _Canvas,
    scale: float,
    *,
    tilt: float,
    angle: float,
    middle: tuple[float, float],
    lit: bool,
) -> None:
    """Put a card into the scene, in place: scaled, turned by ``angle`` degrees, in perspective."""
    if scale < 0.5:  # in one step, fine modules would be sampled instead of averaged
        card, scale = _scaled(card, scale * 2), 0.5
    height, width = card.ids.shape
    turn = np.deg2rad(angle)
    square = np.array([[-width, -height], [width, -height], [width, height], [-width, height]]) * scale / 2
    target = square @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) + middle
    target += rng.uniform(-tilt, tilt, (4, 2)) * min(height, width) * scale * rng.uniform(0, 1)
    source = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    size = canvas.ids.shape[::-1]
    warped = cv2.warpPerspective(
        card.image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    ids = cv2.warpPerspective(card.ids, matrix, size, flags=cv2.INTER_NEAREST)
    cover = np.zeros(canvas.ids.shape, np.uint8)
    cv2.fillConvexPoly(cover, np.round(target * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    if lit and rng.random() < 0.5:
        shade = cv2.GaussianBlur(
            np.roll(cover, tuple(int(v) for v in rng.integers(-8, 9, 2)), (0, 1)), (0, 0), 5
        )
        canvas.image = (canvas.image * (1 - 0.5 * rng.random() * shade[..., None] / 255.0)).astype(np.uint8)
    alpha = cover.astype(np.float32)[..., None] / 255
    canvas.image = (canvas.image * (1 - alpha) + warped * alpha).astype(np.uint8)
    canvas.ids = np.where(cover > 127, _renumbered(canvas, ids, card), canvas.ids)


def _bent(rng: np.random.Generator, card: _Canvas) -> _Canvas:
    """Bend a card round a bottle, or crumple it, with the light that goes with it."""
    height, width = card.ids.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    light = np.zeros((height, width), np.float32)
    if rng.random() < 0.55:
        # What the camera sees at u of a cylinder's width lies at asin(u) of its surface.
        half = rng.uniform(0.5, 1.4)
        if rng.random() < 0.7:
            u = (x / width * 2 - 1) * np.sin(half)
            x = ((np.arcsin(u) / half) + 1) / 2 * width
            sag = height * rng.uniform(-0.12, 0.12)
            y = y + sag * (1 - np.sqrt(1 - u**2))
        else:
            u = (y / height * 2 - 1) * np.sin(half)
            y = ((np.arcsin(u) / half) + 1) / 2 * height
            sag = width * rng.uniform(-0.12, 0.12)
            x = x + sag * (1 - np.sqrt(1 - u**2))
        light = -(u**2) * rng.uniform(0, 0.5)
    else:
        reach = max(height, width)
        for cell, strength in ((reach / 2, 0.035), (reach / 5, 0.014), (reach / 12, 0.004)):
            fold = smooth_noise(rng, height, width, cell) * reach * strength * rng.uniform(0, 1)
            x, y = x + fold, y + np.roll(fold, int(cell), 0)
            slope = np.gradient(fold, axis=1)
            light += slope * rng.uniform(-3, 3)
    x, y = x.astype(np.float32), y.astype(np.float32)
    image = cv2.remap(card.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    image = np.clip(image * (1 + np.clip(light, -0.6, 0.5))[..., None], 0, 255).astype(np.uint8)
    return _Canvas(image, cv2.remap(card.ids, x, y, cv2.INTER_NEAREST), list(card.classes))


# -- what is in the way, and the camera --------------------------------------------------------------


def _obstruct(rng: np.random.Generator, canvas: _Canvas) -> None:
    """Put a finger, a cable, tape or dirt in front, in place."""
    if rng.random() > 0.22:
        return
    height, width = canvas.ids.shape
    mask = np.zeros((height, width), np.uint8)
    reach = max(height, width)
    for _ in range(int(rng.integers(1, 3))):
        start = rng.uniform(0, 1, 2) * [width, height]
        if rng.random() < 0.6:
            end = start + rng.normal(0, reach * 0.5, 2)
            weight = int(reach * rng.uniform(0.005, 0.09)) + 1
            cv2.line(mask, tuple(map(int, start)), tuple(map(int, end)), 255, weight, cv2.LINE_AA)
        else:
            axes = tuple(int(v) for v in reach * rng.uniform(0.01, 0.12, 2) + 1)
            cv2.ellipse(
                mask, tuple(map(int, start)), axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA
            )
    look = np.empty_like(canvas.image)
    look[:] = random_colour(rng)
    if rng.random() < 0.4:
        look = clouds(rng, height, width)
    alpha = mask[..., None] / 255.0
    canvas.image = (canvas.image * (1 - alpha) + look * alpha).astype(np.uint8)
    canvas.ids[mask > 127] = 0


def _expose(rng: np.random.Generator, image: Image, kind: str) -> Image:
    """Take the photograph: light, lens, sensor, compression."""
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
    """Return the image with glare, at night, or of a screen."""
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
    if chance < 0.6:  # few pixels, as of a webcam far off
        scale = rng.uniform(0.35, 0.9)
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return image


def _compressed(rng: np.random.Generator, image: Image, lowest: int) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(lowest, 96))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


# -- labels ------------------------------------------------------------------------------------------


def _labelled(canvas: _Canvas) -> Scene:
    """Return the scene with the extent of each code; cut off and covered ones are marked as ignored."""
    height, width = canvas.ids.shape
    left_over = np.bincount(canvas.ids.ravel(), minlength=len(canvas.classes) + 1)
    class_ids, boxes = [], []
    for number, class_id in enumerate(canvas.classes, start=1):
        if left_over[number] < 12:
            continue
        rows, columns = (
            np.nonzero((canvas.ids == number).any(1))[0],
            np.nonzero((canvas.ids == number).any(0))[0],
        )
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        at_edge = (box[0] == 0) + (box[1] == 0) + (box[2] == width) + (box[3] == height)
        hidden = left_over[number] < _MIN_VISIBLE * canvas.areas.get(number, 0)
        # One that reaches over the edges may be the merest sliver; flush scenes are meant to.
        cut = at_edge and left_over[number] < 0.04 * height * width
        tiny = min(box[2] - box[0], box[3] - box[1]) < _MIN_SIDE_PX and max(height, width) > 256
        faint = canvas.image[box[1] : box[3], box[0] : box[2]].std() < _MIN_CONTRAST
        class_ids.append(-1 if hidden or cut or tiny or faint else class_id)
        boxes.append(box)
    return Scene(canvas.image, np.array(class_ids, np.int64), np.array(boxes, np.float32).reshape(-1, 4))
