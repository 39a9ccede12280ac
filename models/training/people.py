"""Draws people: heads with hair and faces, bodies with arms, legs and patterned clothes."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.emblems import logo
from models.training.surfaces import tinted
from models.training.textures import Colour, Image, random_colour, smooth_noise


def shaded(colour: np.ndarray[tuple[int], np.dtype[np.float32]], factor: float) -> Colour:
    """Return a colour made darker or brighter by a factor."""
    blue, green, red = (int(np.clip(v * factor, 0, 255)) for v in colour)
    return blue, green, red


def _skin(rng: np.random.Generator) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    light = rng.uniform(0.3, 1.0)
    return np.array([150, 185, 228], np.float32) * light + rng.normal(0, 8, 3).astype(np.float32)


def head(rng: np.random.Generator, image: Image, x: float, y: float, reach: float) -> None:
    """Draw a head of half-width ``reach`` at a place, in place; it faces the camera, aside or away."""
    skin = _skin(rng)
    hair = random_colour(rng, 0, 110) if rng.random() < 0.8 else random_colour(rng)
    tall = reach * rng.uniform(1.2, 1.45)
    turn, lean = rng.uniform(-0.5, 0.5), float(rng.normal(0, 8))
    at = (int(x), int(y))
    cv2.ellipse(
        image,
        (int(x), int(y - tall * 0.15)),
        (int(reach * 1.15), int(tall * 1.08)),
        lean,
        0,
        360,
        hair,
        -1,
        cv2.LINE_AA,
    )
    long = rng.random() < 0.5
    if long:
        down = (int(reach * 1.2), int(tall * 1.1))
        cv2.ellipse(image, (int(x), int(y + tall * 0.5)), down, lean, 0, 360, hair, -1, cv2.LINE_AA)
    if rng.random() < 0.8:
        _strands(rng, image, (x, y, reach, tall * (1.5 if long else 0.7)), hair)
    if rng.random() < 0.3:
        return  # seen from behind
    cv2.ellipse(
        image,
        (int(x + turn * reach * 0.3), int(y + tall * 0.12)),
        (max(1, int(reach * 0.92)), max(1, int(tall * 0.88))),
        lean,
        0,
        360,
        shaded(skin, 1),
        -1,
        cv2.LINE_AA,
    )
    cv2.ellipse(
        image,
        at,
        (max(1, int(reach * 0.9)), max(1, int(tall * 0.95))),
        lean,
        190,
        350,
        hair,
        max(1, int(reach * rng.uniform(0.1, 0.5))),
        cv2.LINE_AA,
    )
    if reach < 4:
        return
    apart, eyes = reach * rng.uniform(0.36, 0.46), y + tall * rng.uniform(-0.05, 0.1)
    glasses = rng.random() < 0.3
    for side in (-1, 1):
        ex, ey = int(x + side * apart + turn * reach * 0.5), int(eyes)
        cv2.ellipse(
            image,
            (ex, ey),
            (max(1, int(reach * 0.19)), max(1, int(reach * 0.1))),
            lean,
            0,
            360,
            (230, 235, 238),
            -1,
            cv2.LINE_AA,
        )
        cv2.circle(image, (ex, ey), max(1, int(reach * 0.09)), random_colour(rng, 0, 100), -1, cv2.LINE_AA)
        cv2.ellipse(
            image,
            (ex, int(ey - reach * 0.2)),
            (max(1, int(reach * 0.24)), max(1, int(reach * 0.1))),
            lean,
            190,
            350,
            hair,
            max(1, int(reach * 0.07)),
            cv2.LINE_AA,
        )
        if glasses:
            cv2.ellipse(
                image,
                (ex, ey),
                (max(1, int(reach * 0.32)), max(1, int(reach * 0.26))),
                0,
                0,
                360,
                random_colour(rng, 0, 90),
                max(1, int(reach * 0.06)),
                cv2.LINE_AA,
            )
    nose = (int(x + turn * reach * 0.8), int(y + tall * 0.32))
    cv2.line(
        image,
        (int(x + turn * reach * 0.5), int(eyes)),
        nose,
        shaded(skin, 0.75),
        max(1, int(reach * 0.08)),
        cv2.LINE_AA,
    )
    lips = shaded(skin * np.array([0.7, 0.6, 0.9], np.float32), 1)
    mouth = (int(x + turn * reach * 0.55), int(y + tall * 0.55))
    cv2.ellipse(
        image,
        mouth,
        (max(1, int(reach * 0.3)), max(1, int(reach * rng.uniform(0.04, 0.2)))),
        lean,
        0,
        360,
        lips,
        -1,
        cv2.LINE_AA,
    )
    if rng.random() < 0.25:  # beard
        cv2.ellipse(
            image,
            (mouth[0], int(y + tall * 0.6)),
            (max(1, int(reach * 0.7)), max(1, int(tall * 0.38))),
            lean,
            10,
            170,
            hair,
            max(1, int(reach * 0.2)),
            cv2.LINE_AA,
        )


def _strands(
    rng: np.random.Generator, image: Image, place: tuple[float, float, float, float], hair: Colour
) -> None:
    """Draw strands of hair of different tones, straight, wavy or curly, in place.

    ``place`` has the middle of the head, its half-width, and how far below the middle the hair reaches.
    """
    x, y, reach, below = place
    base = np.array(hair, np.float32) + rng.uniform(0, 40)
    wave, turns = reach * rng.uniform(0, 0.12), rng.uniform(0.5, 6)
    spread = rng.uniform(0.2, 0.8)
    t = np.linspace(0, 1, 14)
    for at in np.linspace(-1, 1, int(np.clip(reach * rng.uniform(0.5, 1.6), 5, 90))):
        top = y - reach * 1.35 * np.sqrt(max(0.0, 1 - at * at))
        ys = top + (y + below * rng.uniform(0.7, 1.05) - top) * t
        xs = x + at * reach * (0.35 + (0.8 + spread * 0.4) * t**0.6)
        xs = xs + wave * np.sin(t * turns * 2 * np.pi + at * 3 + rng.normal(0, 0.4))
        tone = shaded(base, float(np.exp(rng.normal(0.1, 0.45))))
        path = np.stack([xs, ys], 1).astype(np.int32)
        weight = max(1, int(reach * rng.uniform(0.01, 0.08)))
        cv2.polylines(image, [path], False, tone, weight, cv2.LINE_AA)


def person(rng: np.random.Generator, image: Image, x: float, foot: float, tall: float) -> None:
    """Draw a person who stands, walks or sits, ``tall`` pixels high, in place; clothes may have a pattern."""
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    shoulder, hip = foot - tall * 0.82, foot - tall * rng.uniform(0.42, 0.5)
    broad = tall * rng.uniform(0.1, 0.17)
    step = tall * rng.uniform(0, 0.13)
    trousers = random_colour(rng, 0, 170)
    for side in (-1, 1):
        knee = (int(x + side * (broad * 0.4 + step * 0.6)), int((hip + foot) / 2))
        end = (int(x + side * (broad * 0.4 + step)), int(foot))
        for a, b in (((int(x + side * broad * 0.4), int(hip)), knee), (knee, end)):
            cv2.line(image, a, b, trousers, max(1, int(tall * 0.075)), cv2.LINE_AA)
        cv2.ellipse(
            image,
            (end[0] + int(tall * 0.02), end[1]),
            (max(1, int(tall * 0.05)), max(1, int(tall * 0.022))),
            0,
            0,
            360,
            random_colour(rng, 0, 120),
            -1,
            cv2.LINE_AA,
        )
    torso = np.array(
        [
            [x - broad, shoulder],
            [x + broad, shoulder],
            [x + broad * rng.uniform(0.75, 1.2), hip + tall * 0.05],
            [x - broad * rng.uniform(0.75, 1.2), hip + tall * 0.05],
        ]
    )
    cv2.fillPoly(layer, [torso.astype(np.int32)], 255, cv2.LINE_AA)
    for side in (-1, 1):
        elbow = torso[0 if side < 0 else 1] + np.array([side * tall * rng.uniform(0.02, 0.12), tall * 0.17])
        hand = elbow + np.array([rng.uniform(-0.12, 0.12), rng.uniform(-0.1, 0.16)]) * tall
        start = torso[0 if side < 0 else 1] + np.array([-side * tall * 0.02, tall * 0.02])
        cv2.line(
            layer,
            tuple(start.astype(int).tolist()),
            tuple(elbow.astype(int).tolist()),
            255,
            max(1, int(tall * 0.06)),
            cv2.LINE_AA,
        )
        bare = rng.random() < 0.4
        if not bare:
            cv2.line(
                layer,
                tuple(elbow.astype(int).tolist()),
                tuple(hand.astype(int).tolist()),
                255,
                max(1, int(tall * 0.05)),
                cv2.LINE_AA,
            )
        skin = shaded(_skin(rng), 1)
        if bare:
            cv2.line(
                image,
                tuple(elbow.astype(int).tolist()),
                tuple(hand.astype(int).tolist()),
                skin,
                max(1, int(tall * 0.04)),
                cv2.LINE_AA,
            )
        cv2.circle(image, tuple(hand.astype(int).tolist()), max(1, int(tall * 0.028)), skin, -1, cv2.LINE_AA)
    cloth = _cloth(rng, height, width, tall)
    folds = smooth_noise(rng, height, width, max(3, tall * 0.05))[..., None] * rng.uniform(0, 0.35) + 1
    alpha = layer[..., None] / 255.0
    image[:] = np.clip(image * (1 - alpha) + cloth * folds * alpha, 0, 255).astype(np.uint8)
    cv2.line(
        image,
        (int(x), int(shoulder)),
        (int(x), int(shoulder - tall * 0.04)),
        shaded(_skin(rng), 0.9),
        max(1, int(tall * 0.06)),
    )
    head(rng, image, x, shoulder - tall * 0.1, max(2.0, tall * rng.uniform(0.052, 0.066)))


def _cloth(rng: np.random.Generator, height: int, width: int, tall: float) -> Image:
    """Return what clothes look like at the size of a person: plain, striped, checked, or with a print."""
    look = rng.random()
    if look < 0.4:
        cloth = np.empty((height, width, 3), np.uint8)
        cloth[:] = random_colour(rng)
        return cloth
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    turn = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    period = max(2.5, tall * rng.uniform(0.01, 0.08))
    first, second = np.array(random_colour(rng), np.float32), np.array(random_colour(rng), np.float32)
    if look < 0.65:
        mix = (u % period < period * rng.uniform(0.2, 0.7)).astype(np.float32)
    elif look < 0.82:
        mix = ((u % period < period / 2).astype(np.float32) + (v % period < period / 2)) / 2
    else:
        return (
            logo(rng, height, width)
            if rng.random() < 0.5
            else tinted(rng, 0.5 + 0.5 * np.tanh(3 * smooth_noise(rng, height, width, max(2, tall * 0.03))))
        )
    return np.clip(first + (second - first) * mix[..., None], 0, 255).astype(np.uint8)
