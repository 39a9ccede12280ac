"""Draws synthetic photographs: cards with codes in front of backgrounds, seen through a poor camera.

The boxes of the codes are measured instead of calculated: an image of code numbers goes through the same
warps as the scene, and the box of a code is the extent of its number in the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from models.training.cards import Canvas, Image, draw_card, draw_tag, paste, renumbered, rotated, scaled
from models.training.exposure import expose
from models.training.negatives import draw_negative
from models.training.textures import (
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
)
from models.training.video import filmed

#: If a smaller share of a code is visible, training ignores the code.
_MIN_VISIBLE = 0.65
#: A code whose shorter side has fewer scene pixels cannot be distinguished from texture.
_MIN_SIDE_PX = 9.0
#: A code whose pixels have a lower standard deviation is not visible.
_MIN_CONTRAST = 5.0
#: Share of the pictures with surfaces that resemble codes that look like frames of a video.
_FILMED = 0.5
_KINDS = ("flush", "page", "photo", "empty")
_KIND_SHARES = (0.16, 0.15, 0.50, 0.19)


@dataclass(frozen=True, slots=True)
class Scene:
    """Holds an image (h, w, 3), BGR, and its codes: class ids (n,), boxes (n, 4) as x1 y1 x2 y2 in pixels.

    Class id -1 marks hardly visible codes, which training ignores.
    """

    image: Image
    class_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]


def draw_scene(seed: int, side: int = 512, kind: str | None = None) -> Scene:
    """Return scene number ``seed``; its longer side is ``side`` pixels, except in flush scenes.

    ``kind`` is one of `_KINDS`, which are drawn at random if it is None; "texture" for only a surface; "hard"
    for a picture of `negatives` without a code; or "among" for codes in such a picture.
    """
    rng = np.random.default_rng([0xC0DE, seed])
    kind = kind or str(rng.choice(_KINDS, p=_KIND_SHARES))
    if kind == "flush":
        canvas = _flush(rng, side)
    elif kind == "texture":
        canvas = _texture(rng, side)
    else:
        aspect = float(rng.choice([1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16, rng.uniform(0.5, 2)]))
        width, height = (side, int(side / aspect)) if aspect >= 1 else (int(side * aspect), side)
        if kind == "page":
            canvas = _page(rng, height, width)
        elif kind == "hard":
            canvas = Canvas.over(draw_negative(rng, height, width))
        else:
            ground = (draw_negative if kind == "among" else background)(rng, height, width)
            canvas = _photo(rng, ground, empty=kind == "empty")
    if kind != "flush":
        _obstruct(rng, canvas)
    canvas.image = expose(rng, canvas.image, kind)
    if kind in ("hard", "among") and rng.random() < _FILMED:
        canvas.image, canvas.ids = filmed(rng, canvas.image, canvas.ids)
    return _labelled(canvas)


# -- the kinds of scene ------------------------------------------------------------------------------


def _flush(rng: np.random.Generator, side: int) -> Canvas:
    """Return an image that a code fills, like the output of an encoder or a cropped photograph."""
    module_px = int(rng.choice([1, 2, 3, 4, 5, 6, 8, 10], p=[0.08, 0.14, 0.18, 0.18, 0.14, 0.12, 0.10, 0.06]))
    canvas = draw_tag(rng, module_px, flush=True)
    if rng.random() < 0.15:  # several codes, as on a sheet of labels
        others = [canvas, *(draw_tag(rng, module_px, flush=True) for _ in range(int(rng.integers(1, 4))))]
        gap = int(rng.integers(4, 40))
        width = max(o.ids.shape[1] for o in others) + 2 * gap
        sheet = Canvas.over(
            np.full((sum(o.ids.shape[0] + gap for o in others) + gap, width, 3), 255, np.uint8)
        )
        y = gap
        for other in others:
            paste(sheet, other, gap, y)
            y += other.ids.shape[0] + gap
        canvas = sheet
    canvas = rotated(canvas, int(rng.choice([0, 1, 2, 3], p=[0.79, 0.09, 0.05, 0.07])))
    longest = max(canvas.ids.shape)
    if longest > side:
        canvas = scaled(canvas, side / longest)
    if rng.random() < 0.3:  # slightly turned and in perspective
        margin = int(max(canvas.ids.shape) * rng.uniform(0.02, 0.15)) + 1
        size = (canvas.ids.shape[0] + 2 * margin, canvas.ids.shape[1] + 2 * margin)
        ground = np.empty((*size, 3), np.uint8)
        ground[:] = random_colour(rng, 215) if rng.random() < 0.7 else random_colour(rng)
        under = Canvas.over(ground)
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


def _texture(rng: np.random.Generator, side: int) -> Canvas:
    """Return only a textured surface, because detectors easily mistake fine patterns for dense codes."""
    height = int(side * rng.choice([1.0, 0.75, 0.5625]))
    draw = (grain, weave, weave, stripes, lattice, bricks)[int(rng.integers(6))]
    image = draw(rng, height, side)
    if rng.random() < 0.3:  # two surfaces that meet, such as a shoe on a carpet
        other = draw(rng, height, side)
        edge = np.zeros((height, side), np.uint8)
        points = (rng.uniform(-0.3, 1.3, (5, 2)) * np.array([side, height])).astype(np.int32)
        cv2.fillPoly(edge, [cv2.convexHull(points)], 255)
        image = np.where(edge[..., None] > 0, other, image)
    return Canvas.over(image)


def _page(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Return a screenshot or a scan with codes on it."""
    canvas = Canvas.over(page(rng, height, width))
    for _ in range(int(rng.integers(1, 6))):
        part = rotated(draw_tag(rng, 4), int(rng.choice([0, 1, 2, 3], p=[0.8, 0.08, 0.04, 0.08])))
        target = side_px(rng, 26, max(height, width) * 0.6)
        part = scaled(part, target / max(part.ids.shape))
        for _ in range(6):
            x = int(rng.integers(0, max(1, width - part.ids.shape[1])))
            y = int(rng.integers(0, max(1, height - part.ids.shape[0])))
            if not canvas.ids[y : y + part.ids.shape[0], x : x + part.ids.shape[1]].any():
                paste(canvas, part, x, y)
                break
    return canvas


def _photo(rng: np.random.Generator, ground: Image, *, empty: bool) -> Canvas:
    """Return cards in front of a background; without codes if ``empty``."""
    canvas = Canvas.over(ground)
    height, width = ground.shape[:2]
    count = int(rng.choice([1, 1, 1, 2, 3, 5])) if not empty else int(rng.integers(0, 4))
    for _ in range(count):
        card = draw_card(rng, empty=empty or rng.random() < 0.12)
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
            # People point cameras at codes, so the first code is near the middle and of a fair size.
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
    """Return a random length from ``low`` to ``high`` whose logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low * 1.01, high)))))


def _place(
    rng: np.random.Generator,
    canvas: Canvas,
    card: Canvas,
    scale: float,
    *,
    tilt: float,
    angle: float,
    middle: tuple[float, float],
    lit: bool,
) -> None:
    """Put a card into the scene, in place: scaled, turned by ``angle`` degrees, in perspective."""
    if scale < 0.5:  # shrink with averaging first, because the warp only samples pixels
        card, scale = scaled(card, scale * 2), 0.5
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
    canvas.ids = np.where(cover > 127, renumbered(canvas, ids, card), canvas.ids)


def _bent(rng: np.random.Generator, card: Canvas) -> Canvas:
    """Return the card bent round a cylinder or crumpled, with matching light and shade."""
    height, width = card.ids.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    light = np.zeros((height, width), np.float32)
    if rng.random() < 0.55:
        # A point that the camera sees at u (-1..1 across a cylinder) is at angle asin(u) on its surface.
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
    return Canvas(image, cv2.remap(card.ids, x, y, cv2.INTER_NEAREST), list(card.classes))


# -- obstructions ------------------------------------------------------------------------------------


def _obstruct(rng: np.random.Generator, canvas: Canvas) -> None:
    """Draw a finger, a cable, tape or dirt over some of the scenes, in place."""
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


# -- labels ------------------------------------------------------------------------------------------


def _labelled(canvas: Canvas) -> Scene:
    """Return the scene with the box of each code; hardly visible codes get class id -1."""
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
        # A code that touches an edge may be only a sliver. Codes of flush scenes touch the edges on purpose,
        # but they are larger than this.
        cut = at_edge and left_over[number] < 0.04 * height * width
        tiny = min(box[2] - box[0], box[3] - box[1]) < _MIN_SIDE_PX and max(height, width) > 256
        faint = canvas.image[box[1] : box[3], box[0] : box[2]].std() < _MIN_CONTRAST
        class_ids.append(-1 if hidden or cut or tiny or faint else class_id)
        boxes.append(box)
    return Scene(canvas.image, np.array(class_ids, np.int64), np.array(boxes, np.float32).reshape(-1, 4))
