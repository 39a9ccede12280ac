"""Draws backgrounds and printed matter without codes, which a detector must learn to ignore."""

from __future__ import annotations

import string

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

_FONTS = tuple(cv2.FontFace(name) for name in ("sans", "italic", "uni"))
_STROKE_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)
_LETTERS = np.array(list(string.ascii_lowercase * 3 + string.ascii_uppercase + string.digits))
_GLYPHS = "中文字体扫描二维码关注微信日本語の商品" + "АБВГДЖИКЛМНОПРСТУФ"


def smooth_noise(rng: np.random.Generator, height: int, width: int, cell: float) -> npt.NDArray[np.float32]:
    """Return noise in -1..1 whose spots are about ``cell`` pixels wide."""
    small = rng.uniform(-1, 1, (int(height / cell) + 3, int(width / cell) + 3)).astype(np.float32)
    size = (max(width, int(small.shape[1] * cell)), max(height, int(small.shape[0] * cell)))
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)[:height, :width]


def random_colour(rng: np.random.Generator, low: int = 0, high: int = 256) -> Colour:
    """Return a random BGR colour; a third of these colours are greys."""
    if rng.random() < 0.33:
        grey = int(rng.integers(low, high))
        return grey, grey, grey
    blue, green, red = (int(value) for value in rng.integers(low, high, 3))
    return blue, green, red


def words(rng: np.random.Generator, count: int) -> str:
    """Return a line of made-up words and numbers."""
    if rng.random() < 0.06:
        return "".join(rng.choice(list(_GLYPHS), count * 3))
    return " ".join("".join(rng.choice(_LETTERS, rng.integers(1, 11))) for _ in range(count))


def write(
    image: Image, text: str, x: int, y: int, size: int, colour: Colour, rng: np.random.Generator
) -> None:
    """Write one line in a random face, in place; ``size`` is the height of a line in pixels."""
    if rng.random() < 0.7:
        face = _FONTS[rng.integers(len(_FONTS))]
        flags = cv2.PUT_TEXT_ALIGN_LEFT
        # The wrap range ends far past the edge, so long lines run out of the image as on a cropped page.
        cv2.putText(
            image,
            text,
            (x, y),
            colour,
            face,
            size,
            int(rng.choice([300, 400, 700, 900])),
            flags,
            (0, 100_000),
        )
    else:
        font = _STROKE_FONTS[rng.integers(len(_STROKE_FONTS))]
        weight = 1 if size < 22 else int(rng.integers(1, 4))
        cv2.putText(image, text, (x, y), font, size / 30, colour, weight, cv2.LINE_AA)


def add_text(
    image: Image, rng: np.random.Generator, left: int, top: int, right: int, bottom: int, ink: Colour
) -> None:
    """Fill an area with lines of text, in place."""
    size = int(rng.integers(9, max(10, min(34, (bottom - top) // 2 + 10))))
    pitch = size * rng.uniform(1.15, 1.9)
    y = float(top + size)
    while y < bottom:
        if rng.random() < 0.92:
            write(
                image,
                words(rng, int(rng.integers(1, max(2, (right - left) // (4 * size) + 2)))),
                left,
                int(y),
                size,
                ink,
                rng,
            )
        y += pitch


def lay(image: Image, patch: Image, x: int, y: int) -> None:
    """Draw a patch onto the image, in place, and cut off what lies outside."""
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + patch.shape[1], image.shape[1]), min(y + patch.shape[0], image.shape[0])
    if left < right and top < bottom:
        image[top:bottom, left:right] = patch[top - y : bottom - y, left - x : right - x]


def plain(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return one colour with a gradient and grain: a wall, a table, a sheet."""
    base = np.array(random_colour(rng), np.float32)
    ramp = smooth_noise(rng, height, width, max(height, width) / rng.uniform(0.6, 3)) * rng.uniform(0, 60)
    grain = rng.normal(0, rng.uniform(0, 8), (height, width)).astype(np.float32)
    return np.clip(base + (ramp + grain)[..., None], 0, 255).astype(np.uint8)


def clouds(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return noise of several scales in colours: stone, cloth, foliage, gravel, stucco."""
    field = np.zeros((height, width), np.float32)
    roughness = rng.uniform(0.4, 1.1)
    cell = rng.uniform(2, 8)
    for octave in range(5):
        field += smooth_noise(rng, height, width, cell * 2**octave) * roughness ** (-octave) * 0.3
    if rng.random() < 0.3:
        field = np.tanh(field * rng.uniform(2, 10))
    low, high = (np.array(random_colour(rng), np.float32) for _ in range(2))
    mix = np.clip(field * 0.5 + 0.5, 0, 1)[..., None]
    return (low + (high - low) * mix).astype(np.uint8)


def stripes(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return parallel bands: blinds, radiators, fences, corduroy, cables."""
    period = rng.uniform(4, 60)
    if rng.random() < 0.5:
        profile = 0.5 + 0.5 * np.sin(np.arange(width) * 2 * np.pi / period)
        profile = np.clip((profile - 0.5) * rng.uniform(1, 8) + 0.5, 0, 1)
    else:  # bands of one width, unlike the bars of a code, whose widths are different multiples of a module
        profile = (np.arange(width) % period < period * rng.uniform(0.15, 0.85)).astype(np.float64)
    low, high = (np.array(random_colour(rng), np.float32) for _ in range(2))
    row = low + (high - low) * profile[:, None].astype(np.float32)
    light = np.repeat(row[None], height, 0) + smooth_noise(rng, height, width, 90)[..., None] * 25
    return _turned(rng, np.clip(light, 0, 255).astype(np.uint8))


def bricks(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return brickwork or tiles."""
    rows = int(rng.integers(8, 60))
    columns = int(rows * rng.uniform(1, 3.5))
    gap = max(1, int(rows * rng.uniform(0.04, 0.16)))
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 60)
    base = np.array(random_colour(rng), np.int32)
    shift = rng.choice([0.0, 0.5])
    for index, y in enumerate(range(0, height, rows)):
        start = int(-columns * shift * (index % 2))
        for x in range(start, width, columns):
            tone = tuple(int(v) for v in np.clip(base + rng.integers(-22, 22), 0, 255))
            cv2.rectangle(image, (x, y), (x + columns - gap - 1, y + rows - gap - 1), tone, -1)
    return image


def lattice(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a grid, as in a spreadsheet, a mesh fence, graph paper, a checkered cloth or a dot pattern."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 90)
    ink = random_colour(rng, 0, 160)
    step_x, step_y = rng.integers(6, 60, 2)
    kind = rng.integers(4)
    if kind == 0:
        step_y = step_x
        rows, columns = np.mgrid[0:height, 0:width]
        image[((rows // step_y + columns // step_x) % 2).astype(bool)] = ink
    elif kind == 1:
        radius = max(1, int(min(step_x, step_y) * rng.uniform(0.15, 0.45)))
        for y in range(0, height, step_y):
            for x in range(0, width, step_x):
                if rng.random() < 0.9:
                    cv2.circle(image, (x, y), radius, ink, -1, cv2.LINE_AA)
    else:
        weight = int(rng.integers(1, 4))
        image[:, (np.arange(width) % step_x) < weight] = ink
        image[(np.arange(height) % step_y) < weight] = ink
        if kind == 3:
            for y in range(step_y, height, step_y):
                for x in range(0, width, max(step_x, 24)):
                    if rng.random() < 0.5:
                        write(image, words(rng, 1)[:4], x + 3, y - 3, max(8, min(step_y - 4, 16)), ink, rng)
    return image


def keyboard(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return rows of keys or buttons with legends."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 0, 120)
    key, side = random_colour(rng), int(rng.integers(18, 64))
    ink: Colour = (235, 235, 235) if sum(key) < 384 else (25, 25, 25)
    for index, y in enumerate(range(4, height, side)):
        x = -int(side * 0.33 * index) % side - side
        while x < width:
            span = side if rng.random() < 0.9 else int(side * rng.uniform(1.5, 4))
            cv2.rectangle(image, (x, y), (x + span - 4, y + side - 4), key, -1)
            write(image, str(rng.choice(_LETTERS)).upper(), x + side // 4, y + side // 2, side // 2, ink, rng)
            x += span
    return image


def page(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a part of a printed or displayed page: text, frames, filled boxes and images."""
    dark = rng.random() < 0.15
    image = np.empty((height, width, 3), np.uint8)
    image[:] = random_colour(rng, 0, 70) if dark else random_colour(rng, 190)
    ink = random_colour(rng, 170) if dark else random_colour(rng, 0, 110)
    margin = int(width * rng.uniform(0, 0.12))
    y = int(height * rng.uniform(-0.1, 0.08))
    while y < height:
        block = max(8, int(height * rng.uniform(0.06, 0.4)))
        kind = rng.random()
        if kind < 0.66:
            add_text(image, rng, margin, y, width - margin, y + block, ink)
        elif kind < 0.8:
            colour = random_colour(rng)
            x = margin + int(rng.integers(0, max(1, width // 3)))
            cv2.rectangle(
                image,
                (x, y),
                (x + int(width * rng.uniform(0.1, 0.8)), y + block),
                colour,
                int(rng.choice([-1, 1, 2])),
            )
        elif kind < 0.9:
            patch = (clouds, stripes, lattice)[rng.integers(3)](rng, block, max(8, width // 2))
            lay(image, patch, margin, y)
        y += block + int(rng.integers(4, 30))
    return image


def shapes(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a jumble of surfaces and edges: a desk, a shelf, a street."""
    image = (plain if rng.random() < 0.5 else clouds)(rng, height, width)
    for _ in range(int(rng.integers(4, 30))):
        colour = random_colour(rng)
        x, y = int(rng.integers(-40, width)), int(rng.integers(-40, height))
        reach = int(np.exp(rng.uniform(np.log(6), np.log(max(width, height) * 0.6))))
        kind = rng.integers(5)
        if kind == 0:
            axes = (reach, int(reach * rng.uniform(0.1, 1)))
            cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 1:
            around = rng.normal(0, reach / 2, (int(rng.integers(3, 7)), 2))
            points = (around + np.array([x, y])).astype(np.int32)
            cv2.fillPoly(image, [points], colour, cv2.LINE_AA)
        elif kind == 2:
            points = (rng.normal(0, reach, (4, 2)) + np.array([x, y])).astype(np.int32)
            cv2.polylines(
                image, [points], bool(rng.integers(2)), colour, int(rng.integers(1, 12)), cv2.LINE_AA
            )
        elif kind == 3:
            cv2.rectangle(image, (x, y), (x + reach, y + int(reach * rng.uniform(0.1, 2))), colour, -1)
        else:
            patch = _ANY[rng.integers(len(_ANY) - 1)](rng, max(8, reach), max(8, reach))
            lay(image, patch, x, y)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 5))):
            size = int(np.exp(rng.uniform(np.log(10), np.log(90))))
            place = int(rng.integers(0, width)), int(rng.integers(0, height))
            write(image, words(rng, 2), *place, size, random_colour(rng), rng)
    return image


_ANY = (plain, clouds, stripes, bricks, lattice, keyboard, page, shapes)
_SHARES = np.array([0.16, 0.16, 0.10, 0.07, 0.09, 0.05, 0.12, 0.25])


def background(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a random background of one of the kinds in `_ANY`, BGR."""
    return _ANY[rng.choice(len(_ANY), p=_SHARES)](rng, height, width)


def grain(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return fine noise of strong contrast: gravel, stucco, carpet, grass, television noise."""
    cell = rng.uniform(1.2, 6)
    field = smooth_noise(rng, height, width, cell) + rng.uniform(0, 1) * smooth_noise(
        rng, height, width, cell * 3
    )
    field = np.tanh(field * rng.uniform(0.8, 6))
    return _between(rng, field * 0.5 + 0.5)


def weave(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a woven pattern: cloth, herringbone, knitwear, baskets, wire mesh, halftone prints."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    period = rng.uniform(3, 22)
    aspect = float(np.exp(rng.normal(0, 0.5)))
    band = period * rng.uniform(2, 9)
    lean = rng.uniform(-1.2, 1.2) if rng.random() < 0.5 else 0.0
    # Herringbone: the direction of the lean alternates from band to band.
    zigzag = np.abs((x / band) % 2 - 1) * band if rng.random() < 0.5 else x
    phase_x, phase_y = 2 * np.pi * x / period, 2 * np.pi * (y + lean * zigzag) / (period * aspect)
    if rng.random() < 0.5:
        field = np.sin(phase_x) * np.sin(phase_y)
    else:  # every other row is shifted by half a thread
        shift = np.pi * (np.floor(phase_y / (2 * np.pi)) % 2)
        field = np.sin(phase_x + shift) + 0.5 * np.sin(phase_y)
    field = field + rng.uniform(0, 0.8) * smooth_noise(rng, height, width, rng.uniform(1.5, 6))
    field = np.tanh(field * rng.uniform(0.8, 6))
    return _turned(rng, _between(rng, field * 0.5 + 0.5))


def _between(rng: np.random.Generator, mix: npt.NDArray[np.floating]) -> Image:
    """Return an image whose pixels are mixed from two random colours; ``mix`` is 0 to 1."""
    low, high = (np.array(random_colour(rng), np.float32) for _ in range(2))
    return np.clip(low + (high - low) * mix[..., None], 0, 255).astype(np.uint8)


def _turned(rng: np.random.Generator, image: Image) -> Image:
    """Return the pattern turned by a random angle, mirrored at its edges so that it fills the frame."""
    height, width = image.shape[:2]
    if rng.random() < 0.35:
        return image
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), float(rng.choice([90, rng.uniform(0, 180)])), 1.5
    )
    return cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)
