"""Measures recall by the width of the code in the picture, for square and for linear codes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import zxingcpp
from zxingcpp import BarcodeFormat as Format

from inference.core.detections import Boxes
from models.training.score import code_overlap
from models.training.symbols import CLASSES
from models.training.textures import Image, background

#: Widths, as parts of the picture's width: 1/4, 1/5, ...
PARTS = (4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 24, 28)
KINDS = ("square", "linear")
PICTURES = 40
_HEIGHT, _WIDTH = 720, 1280
_MODULE_PX, _QUIET = 8, 4
_LEAST_RECALL = 0.9

Detect = Callable[[Image], Boxes]
Pictures = Iterator[tuple[Image, npt.NDArray[np.float32], int]]


def code(rng: np.random.Generator, kind: str) -> tuple[Image, int]:
    """Return a code of usual size without its quiet zone, (h, w), 0 is ink, and its class id."""
    digits = "".join(rng.choice(list("0123456789"), 12))
    text = "".join(rng.choice(list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), int(rng.integers(8, 25))))
    if kind == "linear":
        made = zxingcpp.create_barcode(
            *((digits, Format.EAN13) if rng.random() < 0.5 else (text[:10], Format.Code128))
        )
        row = np.array(made.to_image(scale=1, add_quiet_zones=False), np.uint8)[0]
        modules = np.repeat(row[None], int(len(row) * rng.uniform(0.3, 0.6)), 0)
        return modules, CLASSES.index("barcode")
    name, shape = (("qr_code", Format.QRCode), ("data_matrix", Format.DataMatrix), ("aztec", Format.Aztec))[
        int(rng.integers(3))
    ]
    options = {"force_square": True} if shape == Format.DataMatrix else {}
    made = zxingcpp.create_barcode(text, shape, **options)
    return np.array(made.to_image(scale=1, add_quiet_zones=False), np.uint8), CLASSES.index(name)


def pictures(kind: str, part: int, count: int = PICTURES) -> Pictures:
    """Yield pictures (720, 1280, 3) with one code of a part of their width, its box (1, 4), and its class id.

    The code is printed on a white label before a drawn background, turned by some degrees. A number gives
    the same code at the same place for each ``part``.
    """
    for number in range(count):
        rng = np.random.default_rng([0x51DE, zlib.crc32(kind.encode()), number])
        ground = cv2.resize(_ground(kind, number), (_WIDTH, _HEIGHT), interpolation=cv2.INTER_LINEAR)
        modules, class_id = code(rng, kind)
        x, y = rng.uniform(0.3, 0.7, 2) * [_WIDTH, _HEIGHT]
        turn, blur, noise = rng.normal(0, 4), rng.uniform(0.3, 0.8), rng.uniform(0, 4)
        scale = _WIDTH / part / modules.shape[1]
        edge = _QUIET if kind == "square" else 10
        label = np.pad(modules, ((_QUIET, _QUIET), (edge, edge)), constant_values=255)
        large = np.kron(label, np.ones((_MODULE_PX, _MODULE_PX), np.uint8))
        large = np.clip(large.astype(np.int32), 25, 235).astype(np.uint8)
        near = scale / _MODULE_PX
        if near < 1:  # average, because the warp only samples pixels
            large = cv2.resize(large, None, fx=near, fy=near, interpolation=cv2.INTER_AREA)
        back = large.shape[1] / label.shape[1]
        matrix = cv2.getRotationMatrix2D((large.shape[1] / 2, large.shape[0] / 2), turn, scale / back)
        matrix[:, 2] += [x - large.shape[1] / 2, y - large.shape[0] / 2]
        flat = cv2.warpAffine(large, matrix, (_WIDTH, _HEIGHT), borderValue=0)
        cover = cv2.warpAffine(np.full_like(large, 255), matrix, (_WIDTH, _HEIGHT))[..., None] / 255.0
        image = ground * (1 - cover) + flat[..., None] * cover
        image = cv2.GaussianBlur(image, (0, 0), blur) + rng.normal(0, noise, (_HEIGHT, _WIDTH, 1))
        _, data = cv2.imencode(
            ".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 85]
        )
        corners = np.array([[edge, _QUIET], [label.shape[1] - edge, label.shape[0] - _QUIET]]) * back
        around = np.array([[corners[i, 0], corners[j, 1], 1] for i in (0, 1) for j in (0, 1)]) @ matrix.T
        box = np.concatenate([around.min(0), around.max(0)])[None].astype(np.float32)
        yield np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8), box, class_id


@lru_cache(maxsize=2 * PICTURES)
def _ground(kind: str, number: int) -> Image:
    """Return the background of a number at half the size; it is the same for all widths."""
    rng = np.random.default_rng([0x6E0, zlib.crc32(kind.encode()), number])
    return background(rng, _HEIGHT // 2, _WIDTH // 2)


def found_by_width(detects: Sequence[Detect], kind: str, count: int = PICTURES) -> list[dict[int, int]]:
    """Return for each detector, by the part of the width (14 means 1/14), how many codes it found."""
    found: list[dict[int, int]] = [dict.fromkeys(PARTS, 0) for _ in detects]
    for part in PARTS:
        for image, box, class_id in pictures(kind, part, count):
            for table, detect in zip(found, detects, strict=True):
                boxes = detect(image)
                boxes = boxes[boxes[:, 5] == class_id]
                fits = code_overlap(boxes, box, np.array([class_id]))
                table[part] += bool(len(boxes)) and float(fits.max()) >= 0.5
    return found


def smallest_part(found: dict[int, int], count: int = PICTURES) -> int | None:
    """Return the smallest width at which, and at all larger ones, 90 % are found, as 1/n; None if at none."""
    best = None
    for part in PARTS:
        if found[part] < _LEAST_RECALL * count:
            break
        best = part
    return best
