"""Lists hostile images as strangers send them, each with the outcome that the decoder must reach."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import cv2
import numpy as np

from tests.unit import hostile_heifs
from tests.unit import hostile_jpegs as jpegs
from tests.unit.hostile_builders import (
    BOMB,
    JPEG,
    LOSSLESS,
    PNG,
    PROGRESSIVE,
    RESTARTS,
    WEBP,
    animation,
    apng,
    behind_header,
    black,
    bmp_as,
    canvas,
    cmyk,
    cut_data,
    first_part,
    frame_chunk,
    idat,
    image_chunk,
    interlaced,
    last_scan,
    overwritten,
    photograph,
    plain,
    spread,
    thousands_of_scans,
)
from tests.unit.hostile_jpegs import scan, segment
from tests.unit.images import (
    encode,
    exif_block,
    jpeg_claiming,
    png_chunk,
    png_claiming,
    riff,
    scene,
    webp_chunk,
    with_exif,
    with_jpeg_segment,
)


class Outcome(StrEnum):
    """Names the result of decoding an image."""

    WHOLE = "whole"
    #: The image is decoded, but a part of it is missing or wrong.
    PARTLY = "partly"
    DAMAGED = "damaged"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Hostile:
    """Holds how to build one hostile image, and its expected outcome."""

    name: str
    make: Callable[[], bytes]
    outcome: Outcome


W, P, D, U, T = Outcome.WHOLE, Outcome.PARTLY, Outcome.DAMAGED, Outcome.UNSUPPORTED, Outcome.TOO_LARGE

JPEGS = (
    Hostile("arithmetic", lambda: jpegs.ARITHMETIC_SCENE, W),
    # The arithmetic decoder replaces missing data with zeros, without a warning.
    Hostile("arithmetic, cut off and ended", lambda: jpegs.ARITHMETIC_SCENE[:-32] + jpegs.EOI, D),
    Hostile("CMYK", cmyk, W),
    Hostile("five thousand sequential scans", lambda: thousands_of_scans(jpegs.BASELINE), D),
    Hostile("five thousand extended sequential scans", lambda: thousands_of_scans(0xC1), D),
    Hostile("five thousand progressive scans", lambda: thousands_of_scans(jpegs.PROGRESSIVE), D),
    Hostile("five thousand arithmetic scans", lambda: thousands_of_scans(jpegs.ARITHMETIC), U),
    Hostile(
        "five thousand arithmetic progressive scans",
        lambda: thousands_of_scans(jpegs.ARITHMETIC_PROGRESSIVE),
        D,
    ),
    Hostile(
        "one arithmetic scan of 33 megapixels",
        lambda: jpegs.head(jpegs.ARITHMETIC, 8192, 4096) + scan() + jpegs.EOI,
        U,
    ),
    Hostile(
        "the scans of a small arithmetic image again",
        lambda: jpegs.ARITHMETIC_SCENE[:-2] + last_scan(jpegs.ARITHMETIC_SCENE) * 900 + jpegs.EOI,
        D,
    ),
    Hostile(
        "the scans of a small image again",
        lambda: JPEG[:-2] + last_scan(JPEG) * 100 + jpegs.EOI,
        D,
    ),
    Hostile(
        "the last progressive scan again",
        lambda: PROGRESSIVE[:-2] + last_scan(PROGRESSIVE) * 100 + jpegs.EOI,
        D,
    ),
    Hostile("refined six times", lambda: jpegs.refined_from(6), W),
    Hostile("refined thirteen times with 33 megapixels", lambda: jpegs.refined_from(13, 4096, 8192), U),
    Hostile(
        "scans behind an end marker in a comment",
        lambda: JPEG[:-2] + segment(0xFE, b"\xff\xd9") + scan((1,)) * 5000,
        D,
    ),
    Hostile(
        "scans behind an impossible marker",
        lambda: RESTARTS[:-40] + b"\xff\x01" + RESTARTS[-40:-2] + scan((1,)) * 5000 + jpegs.EOI,
        P,
    ),
    Hostile(
        "a scan of a channel that is none",
        lambda: jpegs.head(jpegs.BASELINE, 64, 64) + scan((7,)) + jpegs.EOI,
        D,
    ),
    Hostile(
        "ten thousand comments between scans",
        lambda: PROGRESSIVE[:-2] + segment(0xFE, b"") * 10_000 + jpegs.EOI,
        D,
    ),
    Hostile(
        "ten thousand tables in front",
        lambda: JPEG[:2] + jpegs.one_code(0, 0) * 10_000 + JPEG[2:],
        D,
    ),
    Hostile(
        "lines defined later",
        lambda: (
            jpegs.head(jpegs.BASELINE, 64, 0) + scan(data=bytes(99)) + segment(0xDC, b"\x00\x40") + jpegs.EOI
        ),
        D,
    ),
    Hostile(
        "fill bytes",
        lambda: JPEG[:2] + b"\xff" * 4000 + JPEG[2:-2] + b"\xff" * 100_000 + jpegs.EOI,
        W,
    ),
    Hostile("claims 65000x16000", lambda: jpeg_claiming(65_000, 16_000), T),
    Hostile("claims 8000x4000", lambda: jpeg_claiming(8000, 4000), D),
    Hostile("no width", lambda: jpeg_claiming(0, 16), D),
    Hostile("several images in one file", lambda: JPEG + JPEG + PROGRESSIVE, W),
    Hostile(
        "a thumbnail, whole",
        lambda: with_jpeg_segment(JPEG, 0xE1, b"Exif\x00\x00" + exif_block(6) + encode(scene(16, 16))),
        W,
    ),
    Hostile("a ZIP behind it", lambda: JPEG + b"PK\x03\x04" + bytes(1 << 20), W),
    Hostile("a page behind it", lambda: JPEG + b"<html><script>alert(1)</script></html>", W),
    Hostile("megabytes behind it", lambda: JPEG + np.random.default_rng(1).bytes(6 << 20), W),
    Hostile("first fifth", lambda: first_part(JPEG, 0.2), D),
    Hostile("first fifth, ended", lambda: first_part(JPEG, 0.2, jpegs.EOI), D),
    Hostile(
        "first fifth, then zeros",
        lambda: first_part(JPEG, 0.2, bytes(int(len(JPEG) * 0.8)) + jpegs.EOI),
        D,
    ),
    Hostile("first fifth, progressive", lambda: first_part(PROGRESSIVE, 0.2, jpegs.EOI), D),
    Hostile("nine tenths", lambda: first_part(JPEG, 0.9), P),
    Hostile("nine tenths, ended", lambda: first_part(JPEG, 0.9, jpegs.EOI), P),
    Hostile("nine tenths, progressive", lambda: first_part(PROGRESSIVE, 0.9), P),
    Hostile("no end", lambda: JPEG[:-2], W),
    Hostile("no end, progressive", lambda: PROGRESSIVE[:-2], W),
    Hostile("no end, then zeros", lambda: JPEG[:-2] + bytes(5000), W),
    Hostile("no end, then the next image", lambda: JPEG[:-2] + JPEG[:2000], W),
    Hostile("random from two tenths", lambda: overwritten(JPEG, 0.2, 0.9), D),
    Hostile("random from eight tenths", lambda: overwritten(JPEG, 0.8, 0.95), P),
    Hostile("random all over, progressive", lambda: overwritten(PROGRESSIVE, 0.1, 0.9), D),
    Hostile(
        "scans far before the end", lambda: JPEG[:-2] + last_scan(JPEG) * 100 + jpegs.EOI + bytes(9999), D
    ),
    Hostile("unusual sampling", partial(jpegs.unusual, 32), W),
    Hostile("unusual sampling, nine tenths", partial(jpegs.unusual, 28), P),
    Hostile("unusual sampling, half", partial(jpegs.unusual, 16), D),
    Hostile("unusual sampling, no end", lambda: jpegs.unusual(32)[:-2], D),
    Hostile("lossless", lambda: JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1), U),
)

#: Pairs of bits per sample and PNG colour type.
DEPTHS = ((1, 0), (2, 0), (16, 0), (16, 2), (1, 3), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6))

PNGS = (
    *(
        Hostile(f"{depth} bits of colour type {colour}", partial(black, depth, colour), W)
        for depth, colour in DEPTHS
    ),
    Hostile("surplus that inflates to 512 MB", lambda: idat(BOMB), D),
    Hostile("surplus in an interlaced image", lambda: interlaced(64, 64, bytes, bytes(100_000_000)), D),
    Hostile("a second stream of surplus", lambda: idat(plain() + BOMB), W),
    Hostile("surplus in chunks of its own", lambda: spread(BOMB, 1000), D),
    Hostile(
        "two hundred text bombs",
        lambda: behind_header(PNG, png_chunk(b"zTXt", b"k\x00\x00" + BOMB[:2000]) * 200),
        W,
    ),
    Hostile(
        "international text bomb",
        lambda: behind_header(PNG, png_chunk(b"iTXt", b"k\x00\x01\x00\x00\x00" + BOMB)),
        W,
    ),
    Hostile(
        "profile bomb",
        lambda: behind_header(PNG, png_chunk(b"iCCP", b"k\x00\x00" + BOMB)),
        W,
    ),
    Hostile("65,000 empty chunks", lambda: behind_header(PNG, png_chunk(b"teXt", b"") * 65_000), D),
    Hostile(
        "65,000 empty data chunks",
        lambda: spread(plain(), 200)[:-12] + png_chunk(b"IDAT", b"") * 65_000 + png_chunk(b"IEND", b""),
        D,
    ),
    Hostile("animated, with bombs", apng, W),
    Hostile("four channels of 16 bits, 33 megapixels", lambda: png_claiming(8192, 4096, BOMB, 16, 6), T),
    Hostile("half a file with an end", lambda: cut_data(PNG, 0.5), D),
    Hostile("no end", lambda: PNG[:-12], W),
    Hostile("half an end", lambda: PNG[:-5], W),
    Hostile("a comment that is cut off", lambda: PNG[:-12] + png_chunk(b"tEXt", bytes(99))[:50], W),
    Hostile("no end, and half of its data", lambda: cut_data(PNG, 0.5)[:-12], D),
    Hostile(
        "a critical chunk of Apple's",
        lambda: PNG[:33] + png_chunk(b"CgBI", bytes(4)) + PNG[33:],
        D,
    ),
    Hostile("no palette", lambda: png_claiming(64, 64, zlib.compress(bytes(64 * 65)), 8, 3), D),
    Hostile("a ZIP behind it", lambda: PNG + b"PK\x03\x04" + bytes(1 << 20), W),
    Hostile("random bytes", lambda: overwritten(PNG, 0.4, 0.6), D),
)

WEBPS = (
    Hostile(
        "alpha",
        lambda: encode(
            np.dstack([photograph(), photograph()[:, :, :1]]),
            ".webp",
            cv2.IMWRITE_WEBP_QUALITY,
            80,
        ),
        W,
    ),
    Hostile("animated", animation, W),
    Hostile(
        "five hundred frames",
        lambda: riff(canvas(320, 240, 2) + frame_chunk(image_chunk(WEBP), 320, 240) * 500),
        W,
    ),
    Hostile(
        "a small first frame on a large canvas",
        lambda: riff(canvas(1024, 1024, 2) + frame_chunk(image_chunk(WEBP), 320, 240, 100, 60)),
        W,
    ),
    Hostile(
        "a frame beyond its canvas",
        lambda: riff(canvas(256, 256, 2) + frame_chunk(image_chunk(WEBP), 320, 240)),
        D,
    ),
    Hostile(
        "a canvas of 16 million squared",
        lambda: riff(canvas(1 << 24, 1 << 24, 2) + frame_chunk(image_chunk(WEBP), 320, 240)),
        T,
    ),
    Hostile(
        "a canvas larger than its still image",
        lambda: riff(canvas(4096, 4096, 0) + image_chunk(WEBP)),
        D,
    ),
    Hostile("an animation without frames", lambda: riff(canvas(64, 64, 2)), D),
    Hostile(
        "profile and text of a megabyte",
        lambda: riff(
            canvas(320, 240, 0x24)
            + webp_chunk(b"ICCP", bytes(1 << 20))
            + image_chunk(WEBP)
            + webp_chunk(b"XMP ", bytes(1 << 20))
        ),
        W,
    ),
    Hostile(
        "five thousand unknown chunks",
        lambda: riff(canvas(320, 240, 0) + webp_chunk(b"XXXX", b"") * 5000 + image_chunk(WEBP)),
        D,
    ),
    Hostile(
        "half an image in a whole file",
        lambda: riff(webp_chunk(b"VP8 ", WEBP[20 : len(WEBP) // 2])),
        D,
    ),
    Hostile(
        "half a lossless image",
        lambda: riff(webp_chunk(b"VP8L", LOSSLESS[20 : len(LOSSLESS) // 2])),
        D,
    ),
    Hostile("cut off", lambda: WEBP[: len(WEBP) // 2], D),
    Hostile("an image of three bytes", lambda: riff(webp_chunk(b"VP8L", b"\x2f\x00\x00")), D),
    Hostile("megabytes behind it", lambda: WEBP + bytes(6 << 20), W),
)

HEIFS = tuple(Hostile(name, make, Outcome(outcome)) for name, make, outcome in hostile_heifs.FILES)

OTHERS = (
    Hostile("GIF with several images", lambda: b"GIF89a" + bytes(5000), U),
    Hostile("SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', U),
    Hostile(
        "SVG with a prolog", lambda: b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY a "a">]><svg>&a;</svg>', U
    ),
    Hostile("Canon raw", lambda: b"\x00\x00\x00\x18ftypcrx " + bytes(100), U),
    Hostile("BMP", lambda: encode(scene(), ".bmp"), U),
    Hostile("TIFF", lambda: encode(scene(), ".tiff"), U),
    Hostile("JPEG 2000", lambda: encode(scene(), ".jp2"), U),
    Hostile("a BMP that begins like a PNG", lambda: bmp_as(b"\x89PNG\r\n\x1a\n"), D),
    Hostile("a BMP that begins like a JPEG", lambda: bmp_as(b"\xff\xd8\xff"), D),
    Hostile("8 MiB of newlines", lambda: b"\n" * (8 << 20), U),
    Hostile("8 MiB of zeros", lambda: bytes(8 << 20), U),
)

TURNED = tuple(
    Hostile(f"orientation {orientation} of a {kind}", partial(with_exif, data, orientation), W)
    for kind, data in (("JPEG", JPEG), ("PNG", PNG), ("WebP", WEBP))
    for orientation in range(1, 9)
)

CORPUS = {
    f"{group}: {one.name}": one
    for group, several in (
        ("JPEG", JPEGS),
        ("PNG", PNGS),
        ("WebP", WEBPS),
        ("HEIF", HEIFS),
        ("other", OTHERS),
        ("turned", TURNED),
    )
    for one in several
}
