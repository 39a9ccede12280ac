"""The memory that a header predicts for decoding matches the memory that a decoding process uses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from streamer.imaging.image_header import Limits
from tests.unit import hostile_jpegs as jpegs
from tests.unit.heif_files import hevc, irot, libavif_file, libheif_file, tiled
from tests.unit.hostile_builders import canvas, frame_chunk, image_chunk, interlaced, photograph
from tests.unit.hostile_webps import many_code_sets
from tests.unit.images import encode, png_claiming, riff, scene, webp_chunk, with_exif

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 4096, 2048
#: Allowance for shared pages, memory that the allocator keeps, and the first use of a library, in bytes.
SLACK_BYTES = 12 << 20
#: Program that decodes the files on its command line and prints the peak of memory that each one added.
MEASURE = """
import ctypes, json, sys
from streamer.imaging.image_header import Limits
from streamer.imaging.decode import decode

def field(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))

def measure(path):
    with open(path, "rb") as file:
        data = file.read()
    header = Limits().read_header(data)
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    before = field("VmRSS")
    decode(data, header)
    return field("VmHWM") - before

import cv2
from streamer.imaging.heif_pixels import warm_up
cv2.setNumThreads(1)
warm_up()
measure(sys.argv[1])
print(json.dumps([measure(path) for path in sys.argv[1:]]))
"""


def scanlines(channels: int, depth: int) -> bytes:
    return zlib.compress(bytes(HEIGHT * (1 + WIDTH * channels * depth // 8)), 1)


def uncompressed_alpha(width: int, height: int) -> bytes:
    """Return the WebP chunk of an alpha channel that grows from left to right; an encoder takes seconds."""
    return webp_chunk(b"ALPH", b"\x00" + np.linspace(0, 255, width).astype(np.uint8).tobytes() * height)


def lossless_webp(image: np.ndarray) -> bytes:
    """Return a lossless WebP. OpenCV's encoder takes 15 times as long, because it cannot be told to hurry."""
    written = io.BytesIO()
    Image.fromarray(image).save(written, "WEBP", lossless=True, quality=100, method=0)
    return written.getvalue()


def images() -> dict[str, bytes]:
    image = photograph(WIDTH, HEIGHT)
    # Encoding a whole photograph as lossless WebP would take ten times as long as encoding repeated tiles.
    tiles = np.tile(image[:256, :256], (HEIGHT // 256, WIDTH // 256, 1))
    # The decoders of HEIC and AVIF take the same memory for it as for a photograph.
    smooth, png = scene(WIDTH, HEIGHT), encode(image, ".png")
    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    jpeg = encode(image)
    webp = encode(image, ".webp", cv2.IMWRITE_WEBP_QUALITY, 50)
    blocks = WIDTH * HEIGHT // 64
    cmyk = jpegs.head(jpegs.BASELINE, WIDTH, HEIGHT, (0x11,) * 4) + jpegs.one_code(1, 0)
    return {
        "JPEG": jpeg,
        "turned JPEG": with_exif(jpeg, 6),
        "progressive JPEG": encode(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "progressive JPEG, all colours": encode(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1, *full),
        "CMYK JPEG": cmyk + jpegs.scan((1, 2, 3, 4), data=bytes(blocks)) + jpegs.EOI,
        "JPEG of unusual sampling": jpegs.head(jpegs.BASELINE, WIDTH, HEIGHT, (0x21, 0x12, 0x11))
        + jpegs.one_code(1, 0)
        + jpegs.scan((1, 2, 3), data=bytes(blocks))
        + jpegs.EOI,
        "damaged JPEG": jpeg[: len(jpeg) * 9 // 10],
        "PNG": png,
        "deep PNG": png_claiming(WIDTH, HEIGHT, scanlines(4, 16), 16, 6),
        "interlaced PNG": interlaced(WIDTH, HEIGHT, bytes),
        "turned PNG": with_exif(png, 8),
        "WebP": webp,
        "transparent WebP": riff(
            canvas(WIDTH, HEIGHT, 16) + uncompressed_alpha(WIDTH, HEIGHT) + image_chunk(webp)
        ),
        "animated WebP": riff(canvas(WIDTH, HEIGHT, 2) + frame_chunk(image_chunk(webp), WIDTH, HEIGHT) * 3),
        "HEIC": libheif_file(smooth, quality=50, chroma=420, enc_params={"preset": "ultrafast"}),
        "AVIF": libavif_file(smooth, quality=50, subsampling="4:2:0", speed=10),
        "turned HEIC of tiles": tiled([hevc(512, 512)] * 32, 8, WIDTH, HEIGHT, irot(1)).build(),
        "lossless WebP": lossless_webp(tiles),
    }


def measured(files: dict[str, bytes], folder: Path) -> dict[str, int]:
    paths = []
    for number, data in enumerate(files.values()):
        paths.append(folder / f"{number}.bin")
        paths[-1].write_bytes(data)
    answer = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, paths)], capture_output=True, text=True, cwd=ROOT
    )
    if "clear_refs" in answer.stderr:
        pytest.skip("this kernel does not reset the peak of a process's memory")
    assert answer.returncode == 0, answer.stderr
    return dict(zip(files, json.loads(answer.stdout), strict=True))


def test_the_memory_that_decoding_takes_is_known_before(tmp_path: Path) -> None:
    files = images()
    found = measured(files, tmp_path)
    wrong = {}
    for name, data in files.items():
        said = Limits().read_header(data).decode_bytes
        too_little = found[name] > said + SLACK_BYTES
        # Only the decoder finds out how many sets of codes a lossless WebP has; the header assumes the most.
        too_much = said > 1.3 * found[name] + SLACK_BYTES and name != "lossless WebP"
        if too_little or too_much:
            wrong[name] = f"{found[name] >> 20} MB, said were {said >> 20} MB"
    assert wrong == {}


def test_a_lossless_webp_with_many_sets_of_codes_takes_no_more_than_said(tmp_path: Path) -> None:
    files = {str(sets): many_code_sets(1024, 1024, sets) for sets in (1, 20_000, 65_536)}
    assert len(files["65536"]) < 300_000
    found = measured(files, tmp_path)
    # Decoding this image of one megapixel takes 370 MB; the predicted memory must cover such files.
    assert found["65536"] > 200 << 20
    for name, data in files.items():
        assert found[name] < Limits().read_header(data).decode_bytes + SLACK_BYTES, name
