"""Sizes and times as text, and the rate of a download."""

from __future__ import annotations

import pytest

from streamer.model_zoo.progress import SPAN_S, ByteRate, bar, clock, size_text, transfer_line


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


def test_the_line_has_bar_percentage_size_rate_and_time() -> None:
    assert transfer_line("x", 500_000, 2_000_000, 250_000) == (
        "x  [######..................]  25 %  500 kB of 2.0 MB  250 kB/s  0:06 left"
    )
    assert transfer_line("x", 500_000, None, 0) == "x  500 kB  0 B/s"
    assert transfer_line("x", 0, 10, 0).endswith("-:-- left")
    assert bar(5, 4) == f"[{'#' * 24}]"
    assert [clock(s) for s in (0.4, 59.6, 3600)] == ["0:00", "1:00", "1:00:00"]


def test_the_rate_covers_the_last_seconds_without_the_resumed_part() -> None:
    rate = ByteRate()
    assert rate.per_s() == 0
    rate.mark(0.0, 1_000_000)
    assert rate.per_s() == 0
    rate.mark(1.0, 1_100_000)
    assert rate.per_s() == 100_000
    for second in range(2, 40):
        rate.mark(float(second), 1_100_000 + (second - 1) * 1000)
    assert rate.per_s() == pytest.approx(1000, rel=0.01)
    rate.mark(41.0, 0)  # the download started over
    rate.mark(42.0, 500)
    assert rate.per_s() == 500
    assert SPAN_S < 10
