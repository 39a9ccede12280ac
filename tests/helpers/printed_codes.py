"""An image with two printed codes, and a model that finds them, for tests of reading codes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from zxingcpp import BarcodeFormat as Format

from data.make_sample import bars_image, code_image
from tests.helpers.model_factory import Input, constant_model, yolo_rows

#: Width and height of the image in pixels; the input of the model has half of that.
SIDE_PX = 640
QR_TEXT, EAN_TEXT = "https://example.org/a?b=1", "4006381333931"
#: Boxes of the QR code, of the EAN code, and of an empty place, in pixels of the image.
QR_BOX, EAN_BOX, EMPTY_BOX = (40, 40, 288, 288), (240, 440, 580, 560), (420, 60, 600, 240)
LABELS = ("qr_code", "barcode", "parcel")


def sheet() -> npt.NDArray[np.uint8]:
    """Return white paper with a QR code and an EAN-13 code, uint8 BGR."""
    paper = np.full((SIDE_PX, SIDE_PX), 255, np.uint8)
    for code, (x1, y1, *_) in (
        (code_image(QR_TEXT, Format.QRCode, 8), QR_BOX),
        (bars_image(EAN_TEXT, Format.EAN13, 3, 120), EAN_BOX),
    ):
        paper[y1 : y1 + code.shape[0], x1 : x1 + code.shape[1]] = code
    return np.repeat(paper[:, :, None], 3, axis=2)


def jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """Return an image as JPEG."""
    return bytes(cv2.imencode(".jpg", image)[1].tobytes())


def code_model(path: Path) -> Path:
    """Write a model that finds both codes, an empty place of class `qr_code`, and a `parcel` around all."""
    image = Input(
        width=SIDE_PX // 2,
        height=SIDE_PX // 2,
        metadata={"names": str(dict(enumerate(LABELS)))},
    )
    half = SIDE_PX / 2
    objects = (
        (*_halved(QR_BOX), 0.9, 0),
        (*_halved(EAN_BOX), 0.8, 1),
        (*_halved(EMPTY_BOX), 0.7, 0),
        (0.0, 0.0, half, half, 0.6, 2),
    )
    return constant_model(path, {"output0": yolo_rows(objects, len(LABELS), image)}, image)


def _halved(box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return x1 / 2, y1 / 2, x2 / 2, y2 / 2
