"""Draws surfaces of everyday places whose regular pattern resembles a code: carpet, blinds, brick, mesh."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from models.training.textures import Image, random_colour, smooth_noise

Field = npt.NDArray[np.float32]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Return a random number from ``low`` to ``high``; its logarithm is uniformly distributed."""
    return float(np.exp(rng.uniform(np.log(low), np.log(max(low, high)))))


def tinted(rng: np.random.Generator, mix: npt.NDArray[np.floating], *, contrast: float = 1.0) -> Image:
    """Return an image that runs through two or three related colours as ``mix`` goes from 0 to 1."""
    base = np.array(random_colour(rng, 20, 236), np.float32)
    away = rng.normal(0, 70, 3) if rng.random() < 0.4 else np.full(3, rng.normal(0, 90))
    low, high = base - away * contrast / 2, base + away * contrast / 2
    middle = (low + high) / 2 + rng.normal(0, 18, 3)
    value = np.clip(mix, 0, 1)[..., None]
    colours = np.where(
        value < 0.5, low + (middle - low) * value * 2, middle + (high - middle) * (value * 2 - 1)
    )
    return np.clip(colours, 0, 255).astype(np.uint8)


def warped(rng: np.random.Generator, height: int, width: int, strength: float) -> tuple[Field, Field]:
    """Return coordinates x, y of a frame that is turned, in perspective and wavy."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - width / 2, y - height / 2
    turn = rng.choice([0.0, np.pi / 2, rng.normal(0, 0.12), rng.uniform(0, np.pi)], p=[0.25, 0.15, 0.4, 0.2])
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    if rng.random() < 0.5:
        reach = max(height, width)
        away = 1 + rng.uniform(-0.75, 0.75) * y / reach + rng.uniform(-0.5, 0.5) * x / reach
        x, y = x / away, y / away
    if rng.random() < 0.6:
        cell = max(height, width) / rng.uniform(1, 5)
        x = x + smooth_noise(rng, height, width, cell) * cell * strength * rng.uniform(0, 1)
        y = y + smooth_noise(rng, height, width, cell) * cell * strength * rng.uniform(0, 1)
    return x.astype(np.float32), y.astype(np.float32)


def carpet(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a carpet or rug: loops in rows or pile, yarns of several tones, at times bands or motifs."""
    x, y = warped(rng, height, width, 0.06)
    loop = between(rng, 2.2, 14)
    aspect = rng.uniform(0.6, 1.8)
    jitter = smooth_noise(rng, height, width, loop * rng.uniform(0.8, 2)) * loop * rng.uniform(0, 0.7)
    row = np.floor((y + jitter) / (loop * aspect))
    shift = (row % 2) * rng.choice([0.0, 0.5])
    pile = np.abs(np.sin(np.pi * ((x + jitter) / loop + shift))) * np.abs(
        np.sin(np.pi * (y + jitter) / (loop * aspect))
    )
    yarn = smooth_noise(rng, height, width, loop * rng.uniform(0.7, 4))
    speckle = (rng.random((height, width)) ** rng.uniform(1, 6)).astype(np.float32)
    speckle = cv2.GaussianBlur(speckle, (0, 0), rng.uniform(0.4, max(0.5, loop / 4)))
    speckle = (speckle - speckle.mean()) / (speckle.std() + 1e-6)
    weight = rng.uniform(0, 1, 3)
    mix = 0.5 + (weight[0] * (pile - 0.4) + weight[1] * yarn * 0.5 + weight[2] * speckle * 0.3) * rng.uniform(
        0.4, 1.4
    )
    image = tinted(rng, mix, contrast=rng.uniform(0.4, 1.6))
    if rng.random() < 0.35:  # bands, checks or lozenges of another colour, woven into it
        period = between(rng, 30, 260)
        u, v = (x + y, x - y) if rng.random() < 0.4 else (x, y)
        share = rng.uniform(0.2, 0.6)
        bands = u % period < period * share
        if rng.random() < 0.6:
            bands ^= v % (period * rng.uniform(0.5, 2)) < period * share
        tone = np.array(random_colour(rng), np.float32) / 128
        image = np.where(bands[..., None], np.clip(image * tone, 0, 255), image).astype(np.uint8)
    return image


def blinds(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a window with horizontal or vertical blinds: rounded slats, light between them, cords."""
    x, y = warped(rng, height, width, 0.01)
    upright = rng.random() < 0.3
    across, along = (x, y) if upright else (y, x)
    pitch = between(rng, 5, 70)
    phase = (across / pitch + rng.uniform(0, 1)) % 1
    number = np.floor(across / pitch)
    open_share = rng.uniform(0.02, 0.6) + 0.04 * smooth_noise(rng, height, width, 150)
    slat = np.clip((phase - open_share) / (1 - open_share), 0, 1)
    face = np.cos((slat - rng.uniform(0, 1)) * rng.uniform(0.8, 2.6))
    tone = np.array(random_colour(rng, 90), np.float32)
    light = (
        rng.uniform(0.35, 1.0)
        + face * rng.uniform(0.05, 0.35)
        + (np.sin(number * 12.9898) * 0.5) * rng.uniform(0, 0.1)
    )
    slats = tone * light[..., None]
    y0, x0 = np.mgrid[0:height, 0:width].astype(np.float32)
    outside = (
        np.array(random_colour(rng, 120), np.float32)
        if rng.random() < 0.7
        else np.array(random_colour(rng, 0, 80), np.float32)
    )
    scenery = outside + smooth_noise(rng, height, width, 60)[..., None] * rng.uniform(0, 60)
    soft = between(rng, 0.02, 0.12)
    cover = np.clip((phase - open_share) / soft, 0, 1) * np.clip((1 - phase) / soft, 0, 1)
    image = scenery * (1 - cover[..., None]) + slats * cover[..., None]
    for _ in range(int(rng.integers(0, 4))):  # cords and ladders
        at = rng.uniform(-0.5, 0.5) * (height if upright else width)
        cord = np.abs(along - at) < rng.uniform(0.5, 3)
        image[cord] = image[cord] * rng.uniform(0.4, 1.1)
    if rng.random() < 0.4:
        left, top = rng.uniform(0, 0.3, 2) * [width, height]
        right, bottom = rng.uniform(0.7, 1, 2) * [width, height]
        wall = (
            np.array(random_colour(rng, 60), np.float32)
            + smooth_noise(rng, height, width, 200)[..., None] * 15
        )
        image = np.where(((x0 < left) | (x0 > right) | (y0 < top) | (y0 > bottom))[..., None], wall, image)
        cv2.rectangle(
            image,
            (int(left), int(top)),
            (int(right), int(bottom)),
            tuple(map(float, tone)),
            int(rng.integers(2, 14)),
        )
    return np.clip(image, 0, 255).astype(np.uint8)


def striped(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return stripes of things: shirts, deckchairs, radiators, corrugated sheet, railings, books, zebra."""
    x, y = warped(rng, height, width, rng.choice([0.02, 0.25, 0.6]))
    period = between(rng, 6, 120)
    kind = rng.integers(4)
    if kind == 0:  # cloth: a repeat of a few bands
        count = int(rng.integers(2, 7))
        edges = np.sort(rng.uniform(0, 1, count - 1))
        palette = np.array([random_colour(rng) for _ in range(int(rng.integers(2, 4)))], np.float32)
        band = np.searchsorted(edges, (x / (period * count / 2)) % 1) % len(palette)
        image = palette[band]
        thread = rng.uniform(1.5, 4)
        image = image + (np.sin(x * 2 * np.pi / thread) * np.sin(y * 2 * np.pi / thread))[
            ..., None
        ] * rng.uniform(0, 14)
    elif kind == 1:  # round bars: radiators, pipes, pleats, corrugated sheet
        fold = np.sin(2 * np.pi * x / period) * rng.uniform(0.3, 1) + rng.uniform(0, 0.3) * np.sin(
            4 * np.pi * x / period + 1
        )
        image = np.array(random_colour(rng, 40), np.float32) * (1 + 0.5 * fold[..., None])
    elif kind == 2:  # bars before a view: railings, fences, grilles
        view = tinted(rng, 0.5 + 0.5 * smooth_noise(rng, height, width, between(rng, 20, 200))).astype(
            np.float32
        )
        share = rng.uniform(0.1, 0.5)
        bar = (x % period) / (period * share)
        shade = np.sin(np.pi * np.clip(bar, 0, 1)) * rng.uniform(0.2, 0.8) + rng.uniform(0.2, 0.9)
        rail = np.array(random_colour(rng), np.float32) * shade[..., None]
        image = np.where((bar < 1)[..., None], rail, view)
        if rng.random() < 0.6:
            image[np.abs(y - rng.normal(0, height / 4)) < rng.uniform(3, 14)] = random_colour(rng)
    else:  # organic: zebra, wood, water, sand
        bend = smooth_noise(rng, height, width, period * rng.uniform(1.5, 5)) * rng.uniform(0.5, 3)
        wave = np.tanh(np.sin(2 * np.pi * x / period + bend) * rng.uniform(0.8, 8))
        image = tinted(rng, wave * 0.5 + 0.5, contrast=rng.uniform(0.5, 2)).astype(np.float32)
    return np.clip(image + rng.normal(0, rng.uniform(0, 6), (height, width, 1)), 0, 255).astype(np.uint8)


def brickwork(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return bricks, tiles, paving or a mosaic, with mortar, a tone for each stone, and weathering."""
    x, y = warped(rng, height, width, 0.02)
    tall = between(rng, 5, 70)
    long = tall * rng.choice([1.0, rng.uniform(1.0, 1.4), rng.uniform(1.8, 4)])
    row = np.floor(y / tall)
    bond = rng.choice([0.0, 0.5, 1 / 3])
    across = x / long + bond * (row % (2 if bond != 1 / 3 else 3))
    column = np.floor(across)
    fx, fy = (across - column) * long, y - row * tall
    joint = max(0.7, tall * rng.uniform(0.03, 0.2))
    soft = max(0.6, joint * rng.uniform(0.2, 0.8))
    inside = np.clip(
        (np.minimum(np.minimum(fx, long - fx), np.minimum(fy, tall - fy)) - joint / 2) / soft + 0.5, 0, 1
    )
    key = (np.sin(column * 127.1 + row * 311.7 + rng.uniform(0, 6)) * 43758.5453) % 1
    palette = np.array([np.array(random_colour(rng, 40), np.float32)] * 8) + rng.normal(
        0, between(rng, 3, 60), (8, 1)
    )
    palette += rng.normal(0, between(rng, 2, 35), (8, 3))
    stones = palette[np.clip(key * 8, 0, 7).astype(int)]
    rough = smooth_noise(rng, height, width, rng.uniform(1.2, 4)) * rng.uniform(0, 28) + smooth_noise(
        rng, height, width, 40
    ) * rng.uniform(0, 25)
    bevel = (np.clip(fy / tall, 0, 1) - 0.5) * rng.uniform(-30, 30)
    mortar = (
        np.array(random_colour(rng, 30), np.float32) + smooth_noise(rng, height, width, 3)[..., None] * 12
    )
    image = (stones + (rough + bevel)[..., None]) * inside[..., None] + mortar * (1 - inside[..., None])
    return np.clip(image, 0, 255).astype(np.uint8)


def planks(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return boards of wood or laminate: a tone for each board, grain along it, dark or light joints."""
    x, y = warped(rng, height, width, 0.01)
    broad = between(rng, 5, 90)
    long = broad * rng.uniform(4, 18)
    row = np.floor(y / broad)
    offset = (np.sin(row * 127.1 + rng.uniform(0, 6)) * 43758.5453) % 1
    across = x / long + offset
    key = (np.sin(np.floor(across) * 269.5 + row * 183.3) * 43758.5453) % 1
    base = np.array([rng.uniform(15, 130), rng.uniform(50, 170), rng.uniform(80, 220)], np.float32)
    if rng.random() < 0.3:
        base = np.array(random_colour(rng, 40), np.float32)
    tone = 1 + (key - 0.5) * between(rng, 0.05, 0.9)
    fine = between(rng, 1.2, 6)
    bend = smooth_noise(rng, height, width, broad * 2) * broad * rng.uniform(0, 0.4)
    along = np.sin((y + bend + key * 50) / fine) * np.sin((y + bend) / (fine * 2.7) + key * 9)
    light = tone + along * rng.uniform(0, 0.2) + smooth_noise(rng, height, width, 90) * rng.uniform(0, 0.2)
    joint = max(0.6, broad * rng.uniform(0.01, 0.08))
    near = np.minimum(y - row * broad, (across - np.floor(across)) * long)
    light = np.where(near < joint, light * rng.choice([0.3, 0.6, 1.3]), light)
    return np.clip(base * light[..., None], 0, 255).astype(np.uint8)


def mesh(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return perforated sheet, chain link, chair mesh, a loudspeaker, a facade of windows."""
    x, y = warped(rng, height, width, 0.04)
    pitch = between(rng, 5, 60)
    ratio = rng.uniform(0.6, 1.6)
    row = np.floor(y / (pitch * ratio))
    fx = (x / pitch + (row % 2) * rng.choice([0.0, 0.5])) % 1 - 0.5
    fy = (y / (pitch * ratio)) % 1 - 0.5
    power = rng.choice([1.0, 2.0, 6.0])  # lozenge, round, nearly square
    reach = (np.abs(fx * 2) ** power + np.abs(fy * 2) ** power) ** (1 / power)
    edge = rng.uniform(0.35, 0.9)
    hole = np.clip((edge - reach) / rng.uniform(0.05, 0.4) + 0.5, 0, 1)
    sheet = tinted(rng, 0.5 + 0.5 * smooth_noise(rng, height, width, 160)).astype(np.float32)
    sheet += (np.clip(reach - edge, 0, 1) * rng.uniform(-60, 60))[..., None]
    behind = tinted(rng, 0.5 + 0.5 * smooth_noise(rng, height, width, between(rng, 8, 120))).astype(
        np.float32
    )
    if rng.random() < 0.3:  # windows: some lit, some dark
        column = np.floor(x / pitch)
        lit = (np.sin(column * 91.7 + row * 57.3) * 9731.7) % 1
        behind = behind * (0.3 + 1.2 * lit[..., None])
    image = sheet * (1 - hole[..., None]) + behind * hole[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def foliage(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return leaves, grass, fur or gravel: many small strokes in related tones, over each other."""
    image = tinted(rng, 0.5 + 0.5 * smooth_noise(rng, height, width, 50), contrast=0.4)
    base = np.array(random_colour(rng, 20, 200), np.float32)
    length, breadth = between(rng, 4, 40), rng.uniform(0.12, 0.9)
    lean, spread = rng.uniform(0, 180), rng.choice([12.0, 50.0, 180.0])
    count = int(min(2600, 3.0 * height * width / (length * length * breadth + 8)))
    for _ in range(count):
        at = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (
            max(1, int(length * rng.uniform(0.3, 1) / 2)),
            max(1, int(length * breadth * rng.uniform(0.4, 1) / 2)),
        )
        tone = np.clip(base * rng.uniform(0.4, 1.6) + rng.normal(0, 12, 3), 0, 255)
        cv2.ellipse(
            image,
            at,
            axes,
            lean + rng.uniform(-spread, spread),
            0,
            360,
            tuple(map(float, tone)),
            -1,
            cv2.LINE_AA,
        )
    return image
