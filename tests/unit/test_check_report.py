"""Export commands are those of the documentation; functions are timed alternately."""

from __future__ import annotations

from pathlib import Path

from inference.models.family import EXPORTS
from streamer.model_tools.check_report import EXPORTERS, likely_exporters
from streamer.model_tools.comparison import LEAST_ROUNDS, MOST_ROUNDS, time_alternately

MODELS_MD = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_the_documentation_has_the_same_export_commands() -> None:
    section = MODELS_MD.read_text().partition("## Export\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ") and "`" in line]
    assert {row[0].strip("| "): row[1].strip("| `") for row in rows} == {
        exporter.framework: exporter.command for exporter in EXPORTERS
    }


def test_refusals_of_the_service_name_these_export_commands() -> None:
    assert set(EXPORTS.values()) <= {exporter.command for exporter in EXPORTERS}


def test_file_name_and_author_indicate_the_framework() -> None:
    assert [e.framework for e in likely_exporters("my-YOLOX-s.onnx", {})] == ["YOLOX repository"]
    assert [e.framework for e in likely_exporters("rtdetr.onnx", {})] == ["RT-DETR, D-FINE repositories"]
    ours = likely_exporters("best.onnx", {"author": "Ultralytics"})
    assert {e.framework.split(",")[0] for e in ours} == {"Ultralytics YOLO"}
    assert likely_exporters("best.onnx", {}) == EXPORTERS


def test_functions_are_timed_alternately_by_their_median() -> None:
    now, calls = [0.0], []

    def way(name: str, seconds: float) -> None:
        calls.append(name)
        # The first run, and one outlier, must not count.
        now[0] += seconds if len(calls) not in (1, 5) else 100.0

    times = time_alternately([lambda: way("a", 1.0), lambda: way("b", 2.0)], 6.0, clock=lambda: now[0])
    assert times == [1.0, 2.0]
    assert calls[:4] == ["a", "b", "a", "b"]
    assert len(calls) == 2 * (LEAST_ROUNDS + 1)
    calls.clear()
    time_alternately([lambda: calls.append("x")], 1e9, clock=lambda: 0.0)
    assert len(calls) == MOST_ROUNDS + 1
