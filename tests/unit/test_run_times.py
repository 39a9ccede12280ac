"""Tables of run times are complete and without contradiction, or refused with a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamer.simulation.errors import BadScenario
from streamer.simulation.streams.run_times import read_run_times

REPORT = {
    "device": "cuda",
    "cores": 16,
    "batch": None,
    "timings": [
        {"batch": 1, "one_core_ms": 6.0, "all_cores_ms": None},
        {"batch": 2, "one_core_ms": 5.9, "all_cores_ms": None},
        {"batch": 4, "one_core_ms": 12.0, "all_cores_ms": None},
    ],
    "at_once": {"threads": 2, "batch": 4, "ms": 16.0},
}


def test_missing_batch_sizes_are_interpolated() -> None:
    assert read_run_times("1:8,4:20,8:36").cost_ms == {1: 8, 2: 12, 4: 20, 8: 36}
    assert read_run_times(" 1:8 , 3:20").cost_ms == {1: 8, 2: 14}
    assert read_run_times("1:8,8:36", 4).cost_ms == {1: 8, 2: 12, 4: 20}


@pytest.mark.parametrize(
    ("text", "batch_max", "said"),
    [
        ("4:20,8:36", None, "the smallest batch is 4"),
        ("1:8,4:20", 8, "the largest measured batch is 4"),
        ("1:8,4:7", None, "a run of 4 frames takes 7 ms, less than one of 1"),
        ("1:8,1:9", None, "the batch of 1 has two times"),
        ("1:8,x", None, "found 'x'"),
        ("0:8", None, "a batch size from 1 to 64"),
        ("1:-3", None, "milliseconds above 0"),
        ("1:nan", None, "milliseconds above 0"),
    ],
)
def test_what_is_incomplete_or_contradictory_is_refused(text: str, batch_max: int | None, said: str) -> None:
    with pytest.raises(BadScenario, match=said):
        read_run_times(text, batch_max)


def test_a_report_has_the_times_the_device_and_the_gain_of_threads(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps(REPORT))
    times = read_run_times(str(path))
    assert times.cost_ms == {1: 6.0, 2: 6.0, 4: 12.0}  # the fall by 0.1 ms is chance
    assert (times.provider, times.cores, times.all_cores_ms) == ("cuda", 16, None)
    assert times.gain == pytest.approx(1.5)
    assert times.core_efficiency == pytest.approx(0.75)
    assert times.wake_up_ms == 0.0
    for value in (0, 0.12):
        path.write_text(json.dumps(REPORT | {"wake_up_ms": value}))
        assert read_run_times(str(path)).wake_up_ms == value


def test_a_fixed_batch_keeps_its_size(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"batch": 4, "timings": [{"batch": 4, "one_core_ms": 20.0}]}))
    assert read_run_times(str(path)).cost_ms == {4: 20.0}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "has no times"),
        (json.dumps({"timings": []}), "without --no-timing"),
        (json.dumps({"timings": [{"batch": "1"}]}), "without a batch size"),
        (json.dumps({"timings": [{"batch": 1, "one_core_ms": 0}]}), "milliseconds above 0"),
        (json.dumps(REPORT | {"at_once": {"threads": 0, "batch": 1, "ms": 1}}), "`at_once`"),
    ],
)
def test_files_that_are_no_reports_are_refused(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "times.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadScenario, match=said):
        read_run_times(str(path))
