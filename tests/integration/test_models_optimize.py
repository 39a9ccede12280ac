"""``streamer models optimize`` writes a file that the service accepts and that keeps boxes and metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from inference.models.manifest import Manifest, read_manifest
from streamer.cli.main import main
from streamer.model_tools.comparison import Agreement
from streamer.model_tools.layer_sensitivity import rank_layers
from streamer.model_tools.quantiser import quantise
from tests.conftest import shared
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import Input
from tests.helpers.optimise_command import METADATA, Optimise

pytestmark = pytest.mark.usefixtures("short_timing")

#: An input of one plane of bytes with the channels last, and with a fixed batch.
GREY_BYTES = Input(planes=1, channels_last=True, dtype=np.uint8, batch=2)


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}


def served(path: Path) -> bool:
    return main(["models", "check", "--device", "cpu", "--quiet", "--no-timing", "--json", str(path)]) == 0


def test_fp32_gives_the_same_boxes_and_keeps_the_metadata(
    model: Path, images: Path, optimise: Optimise
) -> None:
    model.with_suffix(".json").write_text(
        json.dumps(
            {
                "name": "blobs",
                "labels": ["blob"],
                "batch_max": 2,
                "licence": "MIT",
                "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            }
        )
    )
    code, answer = optimise(model, "--images", images)
    result = model.with_name("blob.fp32.onnx")
    assert code == 0
    assert answer["file"] == str(result)
    assert answer["accuracy"]["original_boxes"] > 40
    assert (answer["accuracy"]["recall"], answer["accuracy"]["precision"]) == (1, 1)
    assert answer["accuracy"]["mean_iou"] == pytest.approx(1, abs=1e-3)
    assert answer["speed"][0]["where"] == "one core"
    assert answer["speed"][0]["gain"] > 0
    kept = metadata(result)
    assert kept.items() >= METADATA.items()
    assert kept["optimised"].startswith("fp32 of sha256 ")
    assert read_manifest(result) == Manifest(
        name="blobs.fp32", labels=("blob",), batch_max=2, licence="MIT", sha256=answer["sha256"]
    )
    assert served(result)
    assert sorted(path.name for path in model.parent.iterdir() if path.name.startswith((".", "blob"))) == [
        "blob.fp32.json",
        "blob.fp32.onnx",
        "blob.json",
        "blob.onnx",
    ]


def test_int8_agrees_and_leaves_the_head_in_float32(model: Path, images: Path, optimise: Optimise) -> None:
    code, answer = optimise(model, "--precision", "int8", "--images", images)
    result = model.with_name("blob.int8.onnx")
    assert code == 0
    assert answer["layers"] == {"all": 2, "spared": 0, "calibrated_on": 20}
    assert answer["accuracy"]["recall"] >= 0.95
    assert answer["accuracy"]["precision"] >= 0.95
    assert answer["accuracy"]["mean_score_change"] < 0.02
    assert metadata(result).items() >= METADATA.items()
    graph = onnx.load(str(result)).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    assert [makers[name] for node in graph.node if node.output[0] == "output0" for name in node.input] == [
        "Add",
        "Sigmoid",
    ]
    assert "DequantizeLinear" in makers.values()
    assert not result.with_suffix(".json").exists()  # the original has no manifest
    assert served(result)


@pytest.mark.parametrize("image", [factory.PLAIN, GREY_BYTES], ids=["usual", "grey bytes"])
def test_layers_that_lose_too_much_stay_in_float32(
    tmp_path: Path, images: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch, image: Input
) -> None:
    """The command must find the layer that quantisation ruins, and keep it in float32."""
    model = factory.blob_model(tmp_path / "blob.onnx", image)
    ranked: list[list[str]] = []

    def tight(ranges: dict[str, Any]) -> dict[str, Any]:
        return {name: (-0.01, 0.01) if name.startswith("second") else part for name, part in ranges.items()}

    def build(graph: Any, plan: Any, ranges: Any, leave_out: Any) -> Any:
        return quantise(graph, plan, tight(ranges), leave_out)

    def rank(graph: Any, layers: Any, ranges: Any, *rest: Any, **options: Any) -> list[str]:
        ranked.append(rank_layers(graph, layers, tight(ranges), *rest, **options))
        return ranked[-1]

    monkeypatch.setattr("streamer.model_tools.int8_search.quantise", build)
    monkeypatch.setattr("streamer.model_tools.int8_search.rank_layers", rank)
    code, answer = optimise(model, "--precision", "int8", "--images", images)
    assert code == 0
    assert ranked == [["second", "first"]]
    assert answer["layers"] == {"all": 2, "spared": 1, "calibrated_on": 20}
    assert answer["accuracy"]["recall"] >= 0.95


def test_an_old_opset_is_converted_for_int8(tmp_path: Path, images: Path, optimise: Optimise) -> None:
    old = factory.blob_model(tmp_path / "old.onnx", Input(batch=1), opset=11)
    code, answer = optimise(old, "--precision", "int8", "--images", images, "--max-images", 5)
    assert code == 0
    assert answer["accuracy"]["pictures"] == 5
    assert answer["accuracy"]["recall"] >= 0.9
    assert any("few to calibrate on" in remark for remark in answer["remarks"])
    assert any("few to judge by" in remark for remark in answer["remarks"])


def test_fp16_agrees_to_the_pixel(model: Path, images: Path, optimise: Optimise) -> None:
    code, answer = optimise(model, "--for", "gpu", "--images", images)
    result = model.with_name("blob.fp16.onnx")
    assert code == 0
    assert answer["precision"] == "fp16"
    assert answer["bytes"]["result"] < answer["bytes"]["original"]
    assert answer["accuracy"]["recall"] >= 0.95
    assert answer["accuracy"]["mean_iou"] == pytest.approx(1, abs=1e-3)
    types = {tensor.name: tensor.data_type for tensor in onnx.load(str(result)).graph.initializer}
    assert types["first_w_half"] == onnx.TensorProto.FLOAT16
    assert served(result)


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
@pytest.mark.parametrize(
    "image",
    [
        Input(channels_last=True),
        Input(dtype=np.uint8),
        Input(planes=1),
        GREY_BYTES,
    ],
    ids=["channels-last", "uint8", "grey", "all"],
)
def test_each_form_of_the_input_is_optimised(
    tmp_path: Path, images: Path, optimise: Optimise, image: Input, precision: str
) -> None:
    path = factory.blob_model(tmp_path / "blob.onnx", image)
    device = "gpu" if precision == "fp16" else "cpu"
    code, answer = optimise(path, "--precision", precision, "--for", device, "--images", images)
    assert code == 0, answer
    assert answer["accuracy"]["original_boxes"] > 40
    assert answer["accuracy"]["recall"] >= 0.95
    assert answer["accuracy"]["precision"] >= 0.95
    result = path.with_name(f"blob.{precision}.onnx")
    assert served(result)
    declared, expected = (onnx.load(str(file)).graph.input[0].type for file in (result, path))
    assert declared == expected
    types = {tensor.data_type for tensor in onnx.load(str(result)).graph.initializer}
    expects = {"int8": onnx.TensorProto.INT8, "fp16": onnx.TensorProto.FLOAT16}
    assert expects.get(precision, onnx.TensorProto.FLOAT) in types


def test_a_real_model_survives_int8(yolox_nano: Path, tmp_path: Path, optimise: Optimise, full: bool) -> None:
    """With all layers in 8 bits about 70 % of the boxes remain; some layers in float32 must restore most."""
    if not full:
        pytest.skip("quantises 100 layers one at a time, which takes 50 s; `--full` runs it")
    folder = shared("data/images")
    code, answer = optimise(
        yolox_nano,
        *("--precision", "int8", "--images", folder, "--max-images", 2),
        *("--to", tmp_path / "nano.onnx", "--agreement", 0.9),
    )
    assert code == 0
    assert answer["accuracy"]["original_boxes"] > 4
    assert answer["accuracy"]["recall"] >= 0.8
    assert answer["accuracy"]["mean_iou"] > 0.85
    assert answer["layers"]["all"] > 100
    assert answer["bytes"]["result"] < answer["bytes"]["original"]


def test_the_report_is_readable(model: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["models", "optimize", str(model), "--precision", "int8", "--images", str(images)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    for text in (
        "int8 for the CPU",
        "2 of 2 in 8 bits",
        "of the original's",
        " on one core: ",
        "times as fast",
    ):
        assert text in said.out
    assert "reading images" in said.err


def test_without_images_the_accuracy_is_not_measured(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "optimize", str(model), "--quiet"]) == 0
    assert "accuracy  not measured: pass images with --images" in capsys.readouterr().out


def test_too_little_agreement_is_reported(
    model: Path, images: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Agreement.add
    monkeypatch.setattr(Agreement, "add", lambda self, one, other: add(self, one, other[:1]))
    _, answer = optimise(model, "--precision", "int8", "--images", images)
    assert answer["accuracy"]["recall"] < 0.6
    assert any("less than the 95% wanted" in remark for remark in answer["remarks"])
