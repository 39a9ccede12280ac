"""Hostile images: each has a defined outcome within a time limit, and no error but ImageError is raised."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, Limits
from tests.helpers.cpu_time import least_cpu_s
from tests.unit import hostile_builders as build
from tests.unit import hostile_heifs as heifs
from tests.unit import hostile_jpegs as jpegs
from tests.unit.heif_files import av1, hevc
from tests.unit.hostile_images import CORPUS, Outcome
from tests.unit.images import png_chunk, riff, webp_chunk

LIMITS = Limits()
#: Limit for reading a header, in CPU seconds. At most 3 ms were measured; a busy machine takes longer.
JUDGED_S = 0.05
#: Limit for decoding, in CPU seconds. The slowest image of the corpus takes a tenth of it.
DECODED_S = 2.0


def outcome_of(data: bytes) -> Outcome:
    try:
        decoded = decode(data, LIMITS.read_header(data))
    except ImageError as error:
        assert error.detail
        return Outcome(error.code.value)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.ndim == 3
    return Outcome.PARTLY if decoded.damaged else Outcome.WHOLE


@pytest.mark.parametrize("name", CORPUS)
def test_each_image_has_its_outcome(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    hostile = CORPUS[name]
    data = hostile.make()
    begun = time.process_time()
    outcome = outcome_of(data)
    decoded_s = time.process_time() - begun
    capfd.readouterr()  # discard lines that codec libraries write
    assert outcome is hostile.outcome
    assert judged_s(data) < JUDGED_S
    assert decoded_s < DECODED_S


# -- cost of reading a header --------------------------------------------------------------------------

MIB = 1 << 20


def _filled(begin: bytes, pattern: bytes, size: int, end: bytes = b"") -> bytes:
    return begin + pattern * ((size - len(begin) - len(end)) // len(pattern)) + end


def _scans(size: int) -> bytes:
    data = bytes(size // 63)
    blocks = b"".join(jpegs.scan((1,), number, number, 0, data) for number in range(1, 63))
    return jpegs.head(jpegs.PROGRESSIVE, 64, 64) + jpegs.scan((1, 2, 3), 0, 0, 0, data) + blocks + jpegs.EOI


#: EXIF directory of 256 entries, none of which is an orientation.
EXIF = struct.pack("<2sHIH", b"II", 42, 8, 256) + struct.pack("<HHII", 0x100, 3, 1, 1) * 256
IN_SCAN = jpegs.head(jpegs.BASELINE, 64, 64) + jpegs.scan()
#: Makers of files of a given size, each of which keeps one parser loop busy for as long as possible.
BUSY: dict[str, Callable[[int], bytes]] = {
    "stuffed bytes": lambda size: _filled(IN_SCAN, b"\xff\x00", size, jpegs.EOI),
    "fill bytes": lambda size: _filled(IN_SCAN, b"\xff", size, jpegs.EOI),
    "restart markers": lambda size: _filled(IN_SCAN, b"\xff\xd0", size, jpegs.EOI),
    "no end": lambda size: _filled(IN_SCAN, b"\x00", size),
    "scan markers": lambda size: _filled(IN_SCAN, b"\xff\xda", size),
    "end markers in comments": lambda size: _filled(IN_SCAN, jpegs.segment(0xFE, b"\xff\xd9" * 30_000), size),
    "small segments between scans": lambda size: _filled(IN_SCAN, jpegs.segment(0xFE, b""), size),
    "small segments in front": lambda size: _filled(b"\xff\xd8", jpegs.segment(0xFE, b""), size),
    "large segments in front": lambda size: _filled(b"\xff\xd8", jpegs.segment(0xE1, bytes(60_000)), size),
    "fill bytes in front": lambda size: _filled(b"\xff\xd8\xff", b"\xff" * 4000 + b"\xd0", size),
    "sixty-three scans": _scans,
    "empty chunks": lambda size: _filled(build.PNG[:33], png_chunk(b"IDAT", b""), size),
    "chunks of 2 KB": lambda size: _filled(build.PNG[:33], png_chunk(b"IDAT", bytes(2036)), size),
    "large EXIF chunks": lambda size: _filled(build.PNG[:33], png_chunk(b"eXIf", bytes(30_000)), size),
    "EXIF chunks of many entries": lambda size: _filled(build.PNG[:33], png_chunk(b"eXIf", EXIF), size),
    "EXIF chunks of a WebP": lambda size: riff(
        build.canvas(64, 64, 2) + webp_chunk(b"EXIF", EXIF) * (size // (len(EXIF) + 8))
    ),
    "chunks of a WebP": lambda size: riff(build.canvas(64, 64, 2) + webp_chunk(b"XXXX", b"") * (size // 8)),
    "chunks of its first frame": lambda size: riff(
        build.canvas(64, 64, 2) + build.frame_chunk(webp_chunk(b"XXXX", b"") * (size // 8), 64, 64)
    ),
    "slices of a HEIC": lambda size: heifs.large_slices(size).build(),
    "units of the tiles of a HEIC": lambda size: heifs.busy_tiles(hevc(), heifs.units(b"\x50\x01\x50"), size),
    "units of the tiles of an AVIF": lambda size: heifs.busy_tiles(av1(), b"\x7a\x00", size),
    "configurations of the tiles of a HEIC": heifs.tiles_of_large_configurations,
    "a tile of a HEIC that is repeated": heifs.one_tile_repeated,
    "text": lambda size: b" " * size,
}


def judged_s(data: bytes, limits: Limits = LIMITS) -> float:
    """Return the CPU seconds that reading the header takes."""

    def read() -> None:
        with contextlib.suppress(ImageError):
            limits.read_header(data)

    return least_cpu_s(read)


@pytest.mark.parametrize("name", BUSY)
def test_judging_takes_linear_time_and_little_of_it(name: str) -> None:
    small, large = judged_s(BUSY[name](MIB)), judged_s(BUSY[name](8 * MIB))
    assert large < JUDGED_S
    # The file has eight times the bytes, so linear time is 8 times as long; twice that and 10 ms are slack.
    assert large < 16 * small + 0.01


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_nothing_but_image_errors_is_raised(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(SMALL)))
    blob = bytearray(SMALL[name])
    for _ in range(data.draw(st.integers(0, 6))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        begin = data.draw(st.integers(0, len(blob)))
        del blob[begin : begin + data.draw(st.integers(0, 40))]
    cut = data.draw(st.integers(len(blob) // 2, len(blob)))
    changed = bytes(blob[:cut])
    limits = Limits(image_px=400_000, image_side_px=1000, reducible_px=0)
    try:
        header = limits.read_header(changed)
        pixels = decode(changed, header).pixels
    except ImageError as error:
        assert error.detail
    else:
        assert (pixels.shape[1], pixels.shape[0]) == header.upright_size


SMALL = {name: data for name, one in CORPUS.items() if len(data := one.make()) < 60_000 and data}
