"""Finds out how much memory decoding an image takes, and the scale at which it stays within a limit."""

from __future__ import annotations

from streamer.imaging.pixel_limits import SCALES, ImageHeader, too_large, turn_bytes
from streamer.imaging.sampled_pixels import kept_bytes, sampled_rows
from streamer.imaging.turning import Turning

#: Bytes of a BGR pixel. Rows can be left out only if the decoder needs no more than this for each pixel.
_BGR_BYTES = 3


def scaled(header: ImageHeader, scale: int) -> tuple[int, int]:
    """Return width and height of the stored pixels that are decoded at 1/``scale`` of their size."""
    return -(-header.width // scale), -(-header.height // scale)


def is_sampled(header: ImageHeader) -> bool:
    """Whether `decode` can leave out the rows of this image that resizing does not read."""
    return header.pixel_bytes == _BGR_BYTES


def choose_scale(
    header: ImageHeader,
    turning: Turning,
    resized: tuple[int, int] | None,
    least: int,
    most_bytes: int | None,
) -> int:
    """Return the scale denominator, at least ``least``, with which decoding stays within ``most_bytes``.

    ``resized`` is the size to which the upright image will be resized linearly; None if all pixels are
    needed. Raises ImageError (too_large) if no scale is small enough.
    """
    if most_bytes is None or max(header.decode_bytes, _turning_bytes(header, turning)) <= most_bytes:
        return least
    for scale in SCALES if header.reducible else (1,):
        needed = decode_memory(header, turning, resized, scale)
        if scale >= least and needed <= most_bytes:
            return scale
    megapixels = header.width * header.height / 1e6
    enough = megapixels * most_bytes / decode_memory(header, turning, resized, least)
    advice = "fewer pixels" if header.kind == "JPEG" else "a baseline JPEG, or fewer pixels"
    raise too_large(
        f"the image is {header.width}x{header.height} pixels ({megapixels:.1f} megapixels), and decoding "
        f"this {header.kind} takes {needed / 1e6:.0f} MB of memory; allowed are {most_bytes / 1e6:.0f} MB, "
        f"enough for some {enough:.0f} megapixels; send {advice}"
    )


def decode_memory(
    header: ImageHeader, turning: Turning, resized: tuple[int, int] | None, scale: int = 1
) -> int:
    """Return an upper bound of the memory in bytes that decoding takes, without the encoded image."""
    if not header.pixel_bytes:
        return max(header.decode_bytes, _turning_bytes(header, turning))
    width, height = scaled(header, scale)
    if header.turned_in_parts and resized is not None:
        width, height = turning.upright_size(width, height)
        pixels = kept_bytes(height, width, sampled_rows(height, resized[1]))
        return max(header.first_bytes, header.beside_bytes + pixels)
    if resized is None or not is_sampled(header):
        turned = turn_bytes(width, height) if turning.changes and not header.turned_in_parts else 0
        return max(header.first_bytes, header.beside_bytes + max(header.pixel_bytes * width * height, turned))
    stored = kept_bytes(height, width, turning.stored_rows(height, width, resized))
    if not turning.changes:
        return header.beside_bytes + stored
    height, width = (width, height) if turning.turns % 2 else (height, width)
    # The decoder has freed its own memory before the pixels are turned.
    return stored + max(header.beside_bytes, kept_bytes(height, width, sampled_rows(height, resized[1])))


def _turning_bytes(header: ImageHeader, turning: Turning) -> int:
    return turn_bytes(header.width, header.height) if turning.changes and not header.turned_in_parts else 0
