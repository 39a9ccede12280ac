"""Tests that pieces of a body are joined in order, and that large bodies free their memory at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.http.body import LARGE_BYTES, PieceBuffer

PIECE = bytes(range(256)) * 256


def shared_bytes() -> int:
    """Return the bytes of this process in shared mappings, which include the pages of large bodies."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssShmem"))


@pytest.mark.parametrize("count", [0, 1, 3, LARGE_BYTES // len(PIECE), 40])
def test_the_bytes_are_those_of_the_pieces(count: int) -> None:
    buffer = PieceBuffer(count * len(PIECE))
    for _ in range(count):
        buffer.add(PIECE)
    assert bytes(buffer.take()) == PIECE * count
    buffer.add(b"next")
    assert buffer.take() == b"next"


def test_a_large_body_takes_its_size_once_and_is_given_back_with_its_last_reference() -> None:
    before = shared_bytes()
    buffer = PieceBuffer(64 << 20)
    for _ in range(128):
        buffer.add(PIECE)
    data = buffer.take()
    took = shared_bytes() - before
    assert abs(took - len(data)) < 64 << 10
    with pytest.raises(TypeError):
        data[0] = 1  # type: ignore[index]
    del data
    assert shared_bytes() - before < 64 << 10


def test_a_piece_larger_than_all_that_was_announced_is_kept() -> None:
    buffer = PieceBuffer(0)
    buffer.add(PIECE * 20)
    assert bytes(buffer.take()) == PIECE * 20
