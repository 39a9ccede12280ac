"""Fuzz targets that read images and video: headers, EXIF, RTP payloads, the jitter buffer."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np

from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, Limits, read_header
from streamer.imaging.pixel_limits import read_orientation
from streamer.imaging.png import PngFile
from streamer.imaging.png_strips import decode_strips
from streamer.protocol.wire import Codec
from streamer.sampling.candidate_image import strip_metadata
from streamer.webrtc.depacketizer import BadPayload, BadVideo, depacketise, read_video_header
from streamer.webrtc.jitter_buffer import JitterBuffer, RtpPayload
from tests.fuzz.target import Target
from tests.unit.heif_files import hevc, irot, libavif_file, libheif_file, tiled
from tests.unit.images import encode, exif_block, png_chunk, png_claiming, scene, with_exif, with_jpeg_segment

_LIMITS = Limits()


def _images() -> Iterator[bytes]:
    image = scene(32, 24)
    jpeg, png = encode(image), encode(image, ".png")
    webp = encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80)
    yield from (jpeg, png, webp)
    yield encode(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    yield encode(image, ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    yield encode(image[:, :, 0], ".png")
    yield encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)
    yield from (with_exif(data, 6) for data in (jpeg, png, webp))
    yield with_jpeg_segment(jpeg, 0xFE, b"comment")
    yield png[:33] + png_chunk(b"tEXt", b"k\0v") + png[33:]
    yield from (jpeg[:-2], encode(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)[:-2])
    yield from (libheif_file(image), libavif_file(image), tiled([hevc()] * 2, 2, 100, 60, irot(1)).build())
    yield encode(scene(200, 150))  # with the limits of `_SMALL`, the decoder reduces it


def _with_metadata() -> Iterator[bytes]:
    image = scene(32, 24)
    png, webp = encode(image, ".png"), encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, 80)
    yield from (with_exif(data, 6) for data in (encode(image), png, webp))
    yield png[:-12]
    yield with_jpeg_segment(encode(image), 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")


def _strip(data: bytes) -> None:
    """Remove the metadata of an image as for a sample; what is left must be an image of the same size."""
    header = read_header(data, _LIMITS)
    if header.codec not in (Codec.JPEG, Codec.PNG, Codec.WEBP):
        return
    after = read_header(strip_metadata(data, header.codec, header.orientation), _LIMITS)
    assert after.upright_size == header.upright_size


def _pngs() -> Iterator[bytes]:
    for colour, depth, row_bytes in (
        (0, 1, 3),
        (0, 16, 40),
        (2, 8, 60),
        (3, 8, 20),
        (4, 8, 40),
        (6, 16, 160),
    ):
        rows = b"".join(bytes([row % 5]) + bytes(range(row, row + row_bytes)) for row in range(12))
        data = png_claiming(20, 12, zlib.compress(rows), depth, colour)
        palette = png_chunk(b"PLTE", bytes(768)) if colour == 3 else b""
        yield data[:33] + palette + data[33:]


def _exif() -> Iterator[bytes]:
    yield from (exif_block(orientation, order) for orientation in (1, 6, 9) for order in "<>")


def _bits(text: str) -> bytes:
    """Convert a text of 0, 1 and blanks to bytes; zero bits fill the last byte."""
    digits = text.replace(" ", "")
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


def _vp8() -> Iterator[bytes]:
    yield b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 640, 480) + bytes(8)
    yield b"\x01" + bytes(20)


def _h264() -> Iterator[bytes]:
    # Parameter sets of 40 x 30 macroblocks: baseline, high, and high with a scaling matrix.
    size = "1 1 1 010 0 00000101000 000011110 1 1"
    yield b"\x00\x00\x00\x01\x67\x42\x00\x1e" + _bits("1" + size)
    yield b"\x00\x00\x00\x01\x67\x64\x00\x1e" + _bits("1 010 1 1 0 0" + size)
    yield b"\x00\x00\x00\x01\x67\x64\x00\x1e" + _bits("1 010 1 1 0 1 1" + "1" * 16 + "0" * 7 + size)
    yield b"\x00\x00\x01\x65\x88\x84\x00\x00\x01\x41\x9a"


def _vp8_payloads() -> Iterator[bytes]:
    yield b"\x10\x00\x9d\x01\x2a"
    yield b"\x90\xf0\x81\x23\x01\x40\x00"


def _h264_payloads() -> Iterator[bytes]:
    yield b"\x67\x42\x00\x1e"
    yield b"\x78\x00\x04\x67\x42\x00\x1e\x00\x02\x68\xce"
    yield b"\x7c\x85\x88\x84"
    yield b"\x7c\x45\x88"


def _as(codec: Codec, read: Callable[[Codec, bytes], object]) -> Callable[[bytes], object]:
    return lambda data: read(codec, data)


_PACKET = struct.Struct("<HIBB")


def _packets() -> Iterator[bytes]:
    def packed(*packets: tuple[int, int, int]) -> bytes:
        return b"".join(_PACKET.pack(seq & 0xFFFF, rtp, flags, 20) for seq, rtp, flags in packets)

    yield packed(*((65_530 + n, 3000 * n, 7) for n in range(20)))
    yield packed((1, 0, 6), (2, 0, 1), (4, 3000, 1), (3, 3000, 2), (9, 6000, 7))
    yield packed(*((n * 700, n, n & 7) for n in range(40)))


def _feed_jitter_buffer(data: bytes) -> None:
    buffer = JitterBuffer()
    now = 0.0
    for seq, rtp, flags, wait in _PACKET.iter_unpack(data[: len(data) - len(data) % _PACKET.size]):
        now += wait / 1000
        buffer.add(RtpPayload(seq, rtp, bool(flags & 1), b"x", bool(flags & 2), bool(flags & 4)), now)
        assert len(buffer) <= 2048, "more packets are kept than there is room for"
        assert len(buffer.to_nack(now)) <= 2048
        if flags & 8:
            buffer.poll(now + 1)
        assert buffer.due is None or buffer.due >= 0


#: Small enough that the largest image that passes takes milliseconds to decode.
_SMALL = Limits(image_px=16_384, image_side_px=512, reducible_px=65_536)


def _decode(data: bytes) -> None:
    """Decode an image as a decoder process does, with libjpeg, libpng, libwebp and FFmpeg."""
    header = read_header(data, _SMALL)
    image = decode(data, header)
    assert image is not None


def _strips(data: bytes) -> None:
    """Decode all rows of a PNG in strips, as a decoder process does with a large one."""
    header = read_header(data, _SMALL)
    if header.codec is not Codec.PNG or PngFile.read(data).frame.interlaced:
        return
    pixels = np.empty((header.height, header.width, 3), np.uint8)
    decode_strips(data, pixels, np.arange(header.height))


TARGETS = (
    Target("image", _decode, (ImageError,), _images, 65_536),
    Target("image_header", lambda data: read_header(data, _LIMITS), (ImageError,), _images, 65_536),
    Target("metadata", _strip, (ImageError, ValueError), _with_metadata, 65_536),
    Target("png_strips", _strips, (ImageError,), _pngs, 65_536),
    Target("exif", read_orientation, (), _exif),
    Target("vp8_header", _as(Codec.VP8, read_video_header), (BadVideo,), _vp8),
    Target("h264_header", _as(Codec.H264, read_video_header), (BadVideo,), _h264),
    Target("vp8_payload", _as(Codec.VP8, depacketise), (BadPayload,), _vp8_payloads),
    Target("h264_payload", _as(Codec.H264, depacketise), (BadPayload,), _h264_payloads),
    Target("jitter_buffer", _feed_jitter_buffer, (), _packets),
)
