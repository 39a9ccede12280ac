"""What samples add to an evaluation: pictures of a drift, estimates, a verdict where there are no rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.datasets.source import FolderSource
from streamer.drift.rows import NUMERIC
from streamer.drift_evaluation.period import Period
from streamer.drift_evaluation.random_samples import equally_weighted, estimates_text, random_rows
from streamer.drift_evaluation.stream_result import Verdict
from tests.helpers.stored_rows import HOUR, MIDNIGHT, between, camera, files_of, store
from tests.unit.test_drift_evaluation import BLURRED_FROM, DAY, END, run, stream_of

WEEK = Period(MIDNIGHT, MIDNIGHT + 72 * HOUR)
AFTER = Period(WEEK.end, WEEK.end + 72 * HOUR)


def sidecar(stream: str, at: float, *, probability: float | None, reason: str, **features: float) -> Any:
    boxes = [
        {"score": 0.9, "label": "cat", "below_threshold": False},
        {"score": 0.2, "label": "dog", "below_threshold": True},
    ]
    return {
        "image": {"key": f"v1/images/{stream}-{at:.0f}.jpg", "width": 640, "height": 480},
        "captured_at": datetime.fromtimestamp(at, UTC).isoformat(),
        "stream": stream,
        "transport": "websocket",
        "model": {"version": "v1", "sha256": "ab" * 32},
        "detections": boxes,
        "selection": {"reasons": [reason], "probability": probability},
        "features": dict.fromkeys(NUMERIC, 1.0) | features,
    }


def sampled(folder: Path, found: Any) -> None:
    """Store a sidecar."""
    at = datetime.fromisoformat(found["captured_at"])
    random = found["selection"]["probability"] is not None
    name = f"{at.timestamp():.0f}{'a' * 20}" + (f"-{at.timestamp() * 1000:.0f}" if random else "")
    path = folder / f"v1/samples/dt={at:%Y-%m-%d}/stream={found['stream']}/{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def draw(folder: Path, stream: str, period: Period, count: int, brightness: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for at in np.linspace(period.begin, period.end, count, endpoint=False):
        values = {"brightness": brightness + 5 * float(rng.standard_normal())}
        sampled(folder, sidecar(stream, float(at), probability=0.001, reason="random", **values))


@pytest.mark.parametrize(
    ("brightness", "count", "verdict"),
    [(100.0, 130, Verdict.NONE), (120.0, 130, Verdict.DRIFT), (120.0, 60, Verdict.CANNOT_JUDGE)],
)
def test_a_stream_without_rows_is_judged_by_its_random_samples(
    tmp_path: Path, brightness: float, count: int, verdict: Verdict
) -> None:
    draw(tmp_path, "gate", WEEK, 130, 100.0, 1)
    draw(tmp_path, "gate", AFTER, count, brightness, 2)
    zone = "T00:00Z"
    period, reference = (f"2027-01-{a}{zone}..2027-01-{b}{zone}" for a, b in ((21, 24), (18, 21)))
    found = stream_of(run(tmp_path, period=period, reference=reference), "gate")
    assert found.verdict is verdict
    if verdict is Verdict.CANNOT_JUDGE:
        assert "too few random samples: 60 in the period and 130 before" in found.reason
    else:
        assert found.notes == [
            "Judged by 130 random samples over the whole period, weighted by their probabilities, "
            "with fixed thresholds."
        ]
    if verdict is Verdict.DRIFT:
        assert [column.name for column in found.episodes[0].moved] == ["brightness"]


def test_random_samples_stand_for_all_frames(tmp_path: Path) -> None:
    """Half of the samples have a tenth of the probability of the others, and stand for ten times as many."""
    for number in range(100):
        rare = number % 2
        found = sidecar(
            "gate",
            WEEK.begin + number * HOUR / 2,
            probability=0.001 if rare else 0.01,
            reason="random",
            n_boxes=5.0 if rare else 0.0,
        )
        sampled(tmp_path, found)
    sampled(tmp_path, sidecar("gate", WEEK.begin, probability=None, reason="uncertainty", n_boxes=99.0))
    drawn = random_rows(FolderSource(tmp_path), "gate", WEEK)
    assert len(drawn) == 100
    rows = equally_weighted(drawn)
    boxes = np.array([row.numbers[NUMERIC.index("n_boxes")] for row in rows])
    assert (len(boxes), boxes.mean()) == (100, pytest.approx(5 * 10 / 11, abs=0.06))
    text = estimates_text(drawn, drawn)
    assert text.startswith("100 random samples in the period and 100 before estimate: boxes per frame 4.55 ")
    assert estimates_text(drawn[:5], drawn) == ""


def test_a_stream_in_drift_lists_the_samples_of_its_drift(tmp_path: Path) -> None:
    store(tmp_path, files_of(between(camera("gate", 32, blurred_from=BLURRED_FROM), 0, END), "a-1"))
    for hour in (1.0, 5.0, 6.0):
        sampled(tmp_path, sidecar("gate", DAY + hour * HOUR, probability=None, reason="drift"))
    sampled(tmp_path, sidecar("gate", DAY + 5.5 * HOUR, probability=None, reason="uncertainty"))
    (tmp_path / "v1/samples/dt=2027-01-19/stream=gate/damaged.json").write_text("{")
    result = run(tmp_path)
    assert stream_of(result, "gate").verdict is Verdict.DRIFT
    assert result.samples["gate"] == [f"v1/images/gate-{DAY + hour * HOUR:.0f}.jpg" for hour in (6.0, 5.0)]
