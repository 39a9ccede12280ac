"""Decodes HEIC and AVIF with the HEVC and AV1 decoders of FFmpeg, in one thread, tile by tile.

FFmpeg does not open the file: it gets the parameter sets and the data of one tile at a time, after `heif` has
checked them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import av
import cv2
import numpy as np
import numpy.typing as npt

from streamer.core.free_memory import return_free_memory
from streamer.imaging.coded_picture import CodedPicture
from streamer.imaging.heif import Colour, HeifImage
from streamer.imaging.pixel_limits import ImageError, ImageErrorCode, damaged, unsupported
from streamer.imaging.tone_mapping import is_hdr, to_sdr
from streamer.imaging.turning import Turning

Image = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.uint8 | np.uint16]

#: After a picture of at least this many pixels, the memory of its closed decoder is returned to the system,
#: before that of its BGR pixels is needed.
_TRIM_PX = 2_000_000
#: Pixels that are converted to BGR at a time.
_STEP_PX = 65_536
#: Weights of red and blue in the luma, by matrix coefficients (ISO/IEC 23091-2). HEIF's default is BT.601.
_WEIGHTS = {
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_RGB = 0
#: How FFmpeg says that values use all bits.
_FULL_RANGE = 2


def decode_heif(data: bytes, turning: Turning, upright: Image) -> None:
    """Decode a file that has passed `read_heif`, and write its upright pixels to ``upright`` (uint8 BGR).

    Raises ImageError (damaged, unsupported).
    """
    image = HeifImage.read(data)
    stored = image.width, image.height
    if upright.shape != (*turning.upright_size(*stored)[::-1], 3):
        raise damaged("its data differ from its header")
    for number, item in enumerate(image.tiles):
        row, column = divmod(number, image.columns)
        left, top = column * image.tile_width - image.left, row * image.tile_height - image.top
        for start, pixels in _strips(image.picture(item), image.colour):
            # Tiles, and strips of them, may be partly outside of the image.
            y, x = top + start, left
            part = pixels[max(0, -y) : max(0, stored[1] - y), max(0, -x) : max(0, stored[0] - x)]
            if part.size:
                turning.place(part, max(0, x), max(0, y), stored, upright)


def open_decoder(name: str, config: bytes, most_px: int) -> av.VideoCodecContext:
    """Return a decoder that refuses pictures of more than ``most_px`` pixels. Raises ImageError."""
    try:
        context = av.CodecContext.create(name, "r")
    except av.codec.codec.UnknownCodecError:
        kind = "HEIC" if name == "hevc" else "AVIF"
        raise ImageError(
            ImageErrorCode.UNSUPPORTED,
            f"{kind} needs the decoder {name} of FFmpeg, which this installation of PyAV lacks",
        ) from None
    if not isinstance(context, av.VideoCodecContext):
        raise TypeError(f"{name} is no video decoder here")
    context.thread_count = 1  # the sandbox allows no more
    if config:
        context.extradata = config
    context.options = {"max_pixels": str(most_px), "err_detect": "explode"}
    return context


def warm_up() -> None:
    """Load the decoders, so that decoder processes share their memory."""
    for name in ("hevc", "libdav1d"):
        with contextlib.suppress(ImageError):
            open_decoder(name, b"", 1 << 20)


def _strips(picture: CodedPicture, colour: Colour | None) -> Iterator[tuple[int, Image]]:
    """Decode a picture; yield the first row and the BGR pixels of each strip of it. Raises ImageError."""
    frame = _decode(picture)
    if picture.coded_px >= _TRIM_PX:
        return_free_memory()
    planes = [_samples(plane, picture.bits) for plane in frame.planes]
    if colour is None:
        primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
        colour = Colour(primaries, transfer, int(frame.colorspace), int(frame.color_range) == _FULL_RANGE)
    matrix = _matrix(colour, picture.chroma)
    rows = max(2, _STEP_PX // picture.width & ~1)
    for top in range(0, picture.height, rows):
        pixels = _to_bgr(planes, top, min(top + rows, picture.height), picture.bits, matrix)
        if is_hdr(colour.transfer):
            pixels = to_sdr(pixels, colour.transfer, colour.primaries)
        yield top, pixels


def _decode(picture: CodedPicture) -> av.VideoFrame:
    """Return the decoded picture; its decoder is closed, and its memory freed. Raises ImageError."""
    context = open_decoder(picture.decoder, picture.config, picture.most_px)
    try:
        frames = context.decode(av.Packet(picture.data)) or context.decode(None)
    except (av.FFmpegError, MemoryError):
        # FFmpeg reports a picture beyond `max_pixels` as one without memory.
        frames = []
    if len(frames) != 1 or frames[0].is_corrupt:
        raise damaged("it cannot be decoded")
    frame = frames[0]
    if (frame.width, frame.height) != (picture.width, picture.height):
        raise damaged(
            f"its header says {picture.width}x{picture.height} pixels, its data {frame.width}x{frame.height}"
        )
    bits = {component.bits for component in frame.format.components}
    if bits != {picture.bits} or len(frame.planes) != (3 if picture.chroma else 1):
        raise damaged(f"its header says {picture.bits} bits, its data are {frame.format.name}")
    return frame


def _samples(plane: av.video.plane.VideoPlane, bits: int) -> Plane:
    """Return the samples of a plane without copying them."""
    kind = np.uint16 if bits > 8 else np.uint8
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    return np.asarray(rows.view(kind)[:, : plane.width])


def _to_bgr(planes: list[Plane], top: int, end: int, bits: int, matrix: npt.NDArray[np.float64]) -> Image:
    """Return rows ``top`` to ``end`` of a picture as BGR; ``top`` is even."""
    height, width = planes[0].shape
    strips = [_eight_bits(planes[0][top:end], bits)]
    for plane in planes[1:]:
        down, across = (2 if plane.shape[0] < height else 1), (2 if plane.shape[1] < width else 1)
        # One more row of chroma above and below, so that borders between strips do not show.
        first, last = max(0, top // down - 1), min(plane.shape[0], -(-end // down) + 1)
        chroma = _eight_bits(plane[first:last], bits)
        if down > 1 or across > 1:
            size = across * chroma.shape[1], down * chroma.shape[0]
            chroma = np.asarray(cv2.resize(chroma, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        strips.append(chroma[top - down * first : end - down * first, :width])
    merged = cv2.merge(strips) if len(strips) == 3 else strips[0]
    return np.asarray(cv2.transform(merged, matrix), np.uint8)


def _eight_bits(samples: Plane, bits: int) -> Image:
    return np.ascontiguousarray(samples >> (bits - 8) if bits > 8 else samples).astype(np.uint8, copy=False)


def _matrix(colour: Colour, chroma: int) -> npt.NDArray[np.float64]:
    """Return the matrix that turns the samples of a pixel, and 1, into blue, green and red (0 to 255)."""
    scale, chroma_scale, black = (1.0, 1.0, 0.0) if colour.full_range else (255 / 219, 255 / 224, 16.0)
    if chroma == 0:
        return np.array([[scale, -scale * black]] * 3)
    if colour.matrix == _RGB and chroma == 3:  # the planes are green, blue and red
        rows = np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]], float) * scale
        rows[:, 3] = -scale * black
        return rows
    if colour.matrix not in _WEIGHTS:
        raise unsupported(f"an image with the matrix coefficients {colour.matrix}")
    red, blue = _WEIGHTS[colour.matrix]
    green = 1 - red - blue
    to_red, to_blue = 2 * (1 - red) * chroma_scale, 2 * (1 - blue) * chroma_scale
    rows = np.array(
        [
            [scale, to_blue, 0.0],
            [scale, -to_blue * blue / green, -to_red * red / green],
            [scale, 0.0, to_red],
        ]
    )
    return np.column_stack([rows, -rows @ np.array([black, 128.0, 128.0])])
