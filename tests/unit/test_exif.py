"""The orientation tag is found in either byte order, and no other bytes raise an error."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.imaging.pixel_limits import read_orientation
from tests.unit.images import exif_block


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_orientation_is_read_in_both_byte_orders(orientation: int, order: str) -> None:
    assert read_orientation(exif_block(orientation, order)) == orientation
    assert read_orientation(b"Exif\x00\x00" + exif_block(orientation, order)) == orientation


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_out_of_range_means_upright(value: int) -> None:
    assert read_orientation(exif_block(value)) == 1


def test_a_long_value_is_taken_as_some_writers_store_it() -> None:
    assert read_orientation(b"II" + struct.pack("<HIHHHII", 42, 8, 1, 0x0112, 4, 1, 6)) == 6


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II",
        b"XX" + exif_block(6)[2:],
        exif_block(6)[:12],
        b"II" + struct.pack("<HI", 43, 8),
        b"II" + struct.pack("<HI", 42, 0xFFFFFFF0),
        b"II" + struct.pack("<HIHHHII", 42, 8, 1, 0x0112, 3, 2, 6),
        b"II" + struct.pack("<HIHHHII", 42, 8, 1, 0x0110, 3, 1, 6),
    ],
)
def test_a_broken_block_means_upright(block: bytes) -> None:
    assert read_orientation(block) == 1


@given(st.binary(max_size=300), st.sampled_from([b"", b"II*\x00", b"MM\x00*", b"Exif\x00\x00II*\x00"]))
def test_no_bytes_make_it_raise(tail: bytes, head: bytes) -> None:
    assert 1 <= read_orientation(head + tail) <= 8
