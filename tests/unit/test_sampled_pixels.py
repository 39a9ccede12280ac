"""Keeping only the rows that resizing reads does not change the results, and most pages are shared."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.imaging.decode import decode
from streamer.imaging.image_header import Limits
from streamer.imaging.sampled_pixels import Pixels, kept_bytes, sampled_memory, sampled_rows
from tests.unit.images import encode, with_exif

WIDTH, HEIGHT = 4096, 3072
#: Size of a JPEG that is just large enough for memory that keeps only some rows.
JPEG_SIZE = 2880, 2000
SIDES = st.integers(1, 400)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


#: Two images of which tests use parts.
NOISE, OTHER_NOISE = noise(900, 900), noise(900, 900, seed=1)


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def own_bytes(field: str = "Pss:") -> int:
    """Return this process's memory in bytes; by default, a page that is mapped several times counts once."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode(resize(noise(250, 360), JPEG_SIZE))


@settings(max_examples=300)
@given(st.integers(2, 900), st.integers(2, 900), SIDES, SIDES)
def test_resizing_reads_no_other_rows_and_columns(height: int, width: int, rows: int, columns: int) -> None:
    image, others = NOISE[:height, :width], OTHER_NOISE[:height, :width].copy()
    kept = np.ix_(sampled_rows(height, rows), sampled_rows(width, columns))
    others[kept] = image[kept]
    assert np.array_equal(resize(image, (columns, rows)), resize(others, (columns, rows)))


@pytest.mark.parametrize("ratio", [2, 3, 4, 8])
def test_whole_ratios_too(ratio: int) -> None:
    image, others = noise(48 * ratio, 64 * ratio), noise(48 * ratio, 64 * ratio, seed=1)
    kept = np.ix_(sampled_rows(48 * ratio, 48), sampled_rows(64 * ratio, 64))
    others[kept] = image[kept]
    assert np.array_equal(resize(image, (64, 48)), resize(others, (64, 48)))


def test_the_rows_are_kept_and_the_others_take_little_memory() -> None:
    rows = sampled_rows(HEIGHT, 240)
    before = own_bytes()
    memory = sampled_memory(HEIGHT, WIDTH, rows)
    assert memory is not None
    for row in range(HEIGHT):
        memory[row] = row % 251
    took = own_bytes() - before
    assert (memory[rows] == (rows % 251)[:, None, None]).all()
    assert took < 0.3 * memory.nbytes
    assert abs(took - kept_bytes(HEIGHT, WIDTH, rows)) < 2 << 20
    held = own_bytes()
    del memory
    assert held - own_bytes() > 0.8 * took


def test_ordinary_memory_is_used_where_little_would_be_saved() -> None:
    assert sampled_memory(1080, 1920, sampled_rows(1080, 240)) is None
    assert sampled_memory(HEIGHT, WIDTH, sampled_rows(HEIGHT, HEIGHT // 3)) is None


@pytest.mark.parametrize("rotation", [0, 1, 2, 3])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_resized_to_the_same_pixels(jpeg: bytes, orientation: int, rotation: int) -> None:
    data = with_exif(jpeg, orientation)
    header = Limits().read_header(data)
    whole = decode(data, header, rotation=rotation).pixels
    size = (320, 240) if whole.shape[1] > whole.shape[0] else (234, 312)
    sampled = decode(data, header, rotation=rotation, resized=size)
    assert not sampled.damaged
    assert sampled.pixels.shape == whole.shape
    assert np.array_equal(resize(sampled.pixels, size), resize(whole, size))
    assert not np.array_equal(sampled.pixels, whole), "all pixels were kept"


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_damage_of_a_large_jpeg_is_found_as_before(jpeg: bytes, share: float) -> None:
    data = jpeg[: int(len(jpeg) * share)] + b"\xff\xd9"
    header = Limits().read_header(data)
    outcomes: list[tuple[object, ...]] = []
    for resized in (None, (320, 240)):
        try:
            decoded = decode(data, header, resized=resized)
            outcomes.append((decoded.damaged, resize(decoded.pixels, (320, 240)).tobytes()))
        except Exception as error:  # noqa: BLE001 - compared below
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]
