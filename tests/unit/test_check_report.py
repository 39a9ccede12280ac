"""The check report: its export commands match the documentation, and functions are timed alternately."""

from __future__ import annotations

from pathlib import Path

import onnx

from inference.models.exporters import EXPORTERS, advice, likely_exporters
from inference.models.onnx_header import OnnxHeader
from streamer.model_tools.comparison import LEAST_ROUNDS, MOST_ROUNDS, time_alternately
from tests.helpers import model_factory as factory

MODELS_MD = Path(__file__).resolve().parents[2] / "docs" / "models.md"


def test_the_documentation_has_the_same_export_commands() -> None:
    section = MODELS_MD.read_text().partition("## Export\n")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ") and "`" in line]
    assert {row[0].strip("| "): row[1].strip("| `") for row in rows} == {
        exporter.framework: exporter.command for exporter in EXPORTERS
    }


def likely(name: str, metadata: dict[str, str] | None = None, outputs: tuple[str, ...] = ()) -> list[str]:
    header = OnnxHeader(metadata=metadata or {}, output_names=outputs)
    return [exporter.framework for exporter in likely_exporters(name, header)]


def test_file_name_author_and_outputs_indicate_the_framework() -> None:
    assert likely("my-YOLOX-s.onnx") == ["YOLOX repository"]
    assert likely("rtdetr.onnx") == ["RT-DETR, D-FINE repositories"]
    assert {name.split(",")[0] for name in likely("best.onnx", {"author": "Ultralytics"})} == {
        "Ultralytics YOLO"
    }
    described = {"author": "Ultralytics", "description": "Ultralytics RTDETR-l model"}
    assert likely("best.onnx", described) == ["Ultralytics RT-DETR"]
    assert likely("best.onnx", None, ("dets", "labels")) == ["RF-DETR"]
    assert likely("best.onnx", None, ("logits", "pred_boxes"))[0].startswith("Hugging Face")
    assert likely("best.onnx", None, ("graph2_flat_predictions",)) == ["YOLO-NAS (SuperGradients)"]
    assert likely("best.onnx") == [exporter.framework for exporter in EXPORTERS]


def test_refusals_advise_the_framework_of_the_file_and_name_none_without_a_sign(tmp_path: Path) -> None:
    path = factory.constant_model(tmp_path / "best.onnx", {"o": factory.yolo_rows((), 1)})
    assert advice(str(path)) == "Export it with the command of its framework under `Export` in docs/models.md"
    path = factory.constant_model(tmp_path / "best.onnx", {"dets": factory.yolo_rows((), 1)})
    assert "model.export()" in advice(str(path), ("dets", "labels"))
    model = onnx.load(str(path))
    model.producer_name = "paddle2onnx"
    onnx.save(model, str(path))
    assert "PaddlePaddle, whose exports the service does not read" in advice(str(path))
    assert "YOLOX repository: export it as `python tools/export_onnx.py" in advice("none/yolox_s.onnx")


def test_functions_are_timed_alternately_by_their_median() -> None:
    now, calls = [0.0], []

    def way(name: str, seconds: float) -> None:
        calls.append(name)
        # The first run and one outlier take 100 s; the result must ignore them.
        now[0] += seconds if len(calls) not in (1, 5) else 100.0

    times = time_alternately([lambda: way("a", 1.0), lambda: way("b", 2.0)], 6.0, clock=lambda: now[0])
    assert times == [1.0, 2.0]
    assert calls[:4] == ["a", "b", "a", "b"]
    assert len(calls) == 2 * (LEAST_ROUNDS + 1)
    calls.clear()
    time_alternately([lambda: calls.append("x")], 1e9, clock=lambda: 0.0)
    assert len(calls) == MOST_ROUNDS + 1
