"""Gives the stored bytes of a sample as a picture whose pixels stand as its boxes do."""

from __future__ import annotations

import cv2

from streamer.datasets.errors import DamagedSample
from streamer.datasets.sample import Sample
from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, read_header

_QUALITY = 95


class _AnySize:
    """The service has judged sizes before."""

    image_px = 1 << 40
    image_side_px = 65_535


def upright_picture(sample: Sample, data: bytes) -> tuple[bytes, str]:
    """Return the picture and its file extension: untouched where it is upright, else turned and encoded anew.

    Tools differ in whether they heed EXIF, and none knows of the protocol's rotation. Raises DamagedSample.
    """
    if sample.is_upright:
        return data, sample.kind
    try:
        image = decode(data, read_header(data, _AnySize()), rotation=sample.rotation).pixels
    except ImageError as error:
        raise DamagedSample(f"{sample.key}: {error}") from error
    if image.shape[:2] != (sample.height, sample.width):
        raise DamagedSample(
            f"{sample.key}: upright it has {image.shape[1]}x{image.shape[0]} pixels, "
            f"its description says {sample.width}x{sample.height}"
        )
    extension, options = (
        ("png", []) if sample.kind == "png" else ("jpg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    )
    return cv2.imencode(f".{extension}", image, options)[1].tobytes(), extension
