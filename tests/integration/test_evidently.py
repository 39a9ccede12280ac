"""Tests that the real Evidently, in its own process, computes the same scores as our code."""

from __future__ import annotations

import pytest

from streamer.drift.engine import run_evidently
from tests.helpers.drift_rows import drifted_check


async def test_evidently_measures_what_we_measure_and_makes_the_page() -> None:
    found = drifted_check()
    answer = await run_evidently([found], {"gate": "v1:ab"}, 150, html=True)
    ours = {c.name: c.score for c in found.columns if c.score is not None and c.name != "classes"}
    assert "conf_mean" not in ours
    assert "jpeg_bpp" not in ours
    assert answer.scores["gate"] == pytest.approx(ours, abs=0.01)
    assert "<html" in answer.html[:200]
    assert "brightness" in answer.html
    assert "<script>alert" not in answer.html
    assert r"\u2039script\u203aalert" in answer.html, "what was cleaned is shown"
