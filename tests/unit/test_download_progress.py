"""Tests the text of sizes, and the status line of a download: bytes, rate and remaining time."""

from __future__ import annotations

import io

import pytest

from streamer.core.terminal import PLAIN_INTERVAL_S, Terminal
from streamer.model_zoo.registry import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (3_659_407, "3.7 MB"),
        (99_960, "100 kB"),
        (396_142_663, "396 MB"),
        (999_600_000, "1.0 GB"),
        (5_000_000_000_000, "5000 GB"),
    ],
)
def test_sizes_are_decimal(size: int | None, text: str) -> None:
    assert size_text(size) == text


class Download:
    """A download whose status line is written to a log file at every step."""

    def __init__(self) -> None:
        self._now = 100.0
        self._stream = io.StringIO()
        self._terminal = Terminal(stream=self._stream, clock=lambda: self._now)

    def shows(self, done: int, total: int | None = 2_000_000) -> str:
        """Return the line for these bytes, written one interval after the line before it."""
        self._stream.truncate(0)
        self._now += PLAIN_INTERVAL_S
        self._terminal.transfer("x", done, total)
        return self._stream.getvalue().strip("\0\n")


def test_the_line_has_percentage_size_rate_and_time() -> None:
    download = Download()
    assert download.shows(0) == "x 0% 0.0/2.0 MB ? --:--"
    download.shows(250_000)
    assert download.shows(500_000) == "x 25% 0.5/2.0 MB 50.0 kB/s 00:30"


def test_without_a_size_the_line_has_no_share() -> None:
    download = Download()
    download.shows(1_000, None)
    download.shows(500_000, None)
    assert download.shows(1_000_000, None) == "x 1.0/? MB 100.0 kB/s"


def test_the_part_that_an_earlier_download_left_has_no_rate() -> None:
    download = Download()
    assert download.shows(1_000_000) == "x 50% 1.0/2.0 MB ? --:--"
    download.shows(1_100_000)
    assert download.shows(1_200_000) == "x 60% 1.2/2.0 MB 20.0 kB/s 00:40"


def test_a_download_that_starts_over_has_a_new_rate() -> None:
    download = Download()
    for done in (0, 500_000, 1_000_000):
        download.shows(done)
    assert download.shows(0) == "x 0% 0.0/2.0 MB ? --:--"
    download.shows(1_000)
    assert " 200 bytes/s " in download.shows(2_000)
