"""Makes image files upright: as every tool shows them, whether or not it knows EXIF."""

from __future__ import annotations

import cv2

from streamer.datasets.sample import DamagedSample, Sample
from streamer.imaging.decode import Image, decode
from streamer.imaging.image_header import ImageError, read_header
from streamer.imaging.pixel_limits import NoPixelLimits
from streamer.protocol.wire import Codec

#: JPEG quality of images that had to be encoded again.
_QUALITY = 95
_EXTENSIONS = {Codec.JPEG: "jpg", Codec.PNG: "png", Codec.WEBP: "webp"}


def upright_image(sample: Sample, data: bytes) -> tuple[bytes, str]:
    """Return the image file of a sample with upright pixels, and its extension. Raises DamagedSample.

    The boxes of a sample are those of the upright image. A file that is upright already is returned
    unchanged; others are rotated and encoded again, because tools differ in whether they apply the EXIF
    orientation and none of them knows the protocol's rotation.
    """
    if sample.is_upright:
        return data, sample.kind
    image = upright_pixels(data, sample.key, sample.rotation)
    if image.shape[:2] != (sample.height, sample.width):
        raise DamagedSample(
            f"{sample.key}: the upright image has {image.shape[1]}x{image.shape[0]} pixels; "
            f"its sidecar says {sample.width}x{sample.height}"
        )
    return _encoded(image, sample.kind)


def upright_file(data: bytes, where: str) -> tuple[bytes, str, tuple[int, int]]:
    """Return an image file with upright pixels, its extension, and its width and height.

    A JPEG, PNG or WebP that is upright already is returned unchanged. Raises DamagedSample, whose message
    begins with ``where``.
    """
    try:
        header = read_header(data, NoPixelLimits())
    except ImageError as error:
        raise DamagedSample(f"{where}: {error}") from error
    extension = _EXTENSIONS.get(header.codec)
    if extension is not None and header.orientation == 1:
        return data, extension, header.upright_size
    image = upright_pixels(data, where)
    return *_encoded(image, extension or "jpg"), (image.shape[1], image.shape[0])


def upright_pixels(data: bytes, where: str, rotation: int = 0) -> Image:
    """Return the upright pixels (h, w, 3), BGR, turned by ``rotation`` quarters. Raises DamagedSample."""
    try:
        return decode(data, read_header(data, NoPixelLimits()), rotation=rotation).pixels
    except ImageError as error:
        raise DamagedSample(f"{where}: {error}") from error


def _encoded(image: Image, kind: str) -> tuple[bytes, str]:
    extension, parameters = ("png", []) if kind == "png" else ("jpg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return cv2.imencode(f".{extension}", image, parameters)[1].tobytes(), extension
