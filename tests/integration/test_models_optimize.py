"""``streamer models optimize`` writes a file that the service accepts and that keeps boxes and metadata."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from inference.models.manifest import Manifest, read_manifest
from streamer.cli import models_files
from streamer.cli.main import main
from streamer.model_tools import comparison
from streamer.model_tools.comparison import Agreement
from streamer.model_tools.layer_sensitivity import rank_layers
from streamer.model_tools.quantiser import quantise
from tests.conftest import shared
from tests.helpers import faulty_models
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import Input

#: An input of one plane of bytes with the channels last, and with a fixed batch.
GREY_BYTES = Input(planes=1, channels_last=True, dtype=np.uint8, batch=2)
METADATA = {"names": "{0: 'blob'}", "licence": "MIT"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure times only briefly, because no test here checks one."""
    monkeypatch.setattr(models_files, "TIMING_S", 0.05)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return factory.blob_model(tmp_path / "blob.onnx", Input(metadata=METADATA))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of 20 images in three sizes, with up to three bright cells each."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(20):
        image = random.integers(0, 120, (64, 64, 3)).astype(np.uint8)
        for column, row in random.integers(0, 8, (3, 2)):
            image[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = random.integers(200, 255)
        scale = 1 + number % 3
        assert cv2.imwrite(
            str(folder / f"{number}.png"), np.kron(image, np.ones((scale, scale, 1), np.uint8))
        )
    return folder


Optimise = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def optimise(capsys: pytest.CaptureFixture[str]) -> Optimise:
    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = main(["models", "optimize", "--quiet", "--json", *map(str, arguments)])
        said = capsys.readouterr()
        return code, json.loads(said.out) if not code else {"error": said.err}

    return run


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


def test_existing_files_are_replaced_only_with_force(model: Path, optimise: Optimise) -> None:
    result = model.with_name("blob.fp32.onnx")
    result.write_bytes(b"mine")
    code, answer = optimise(model)
    assert code == 5
    assert f"{result} exists already; --force replaces it" in answer["error"]
    assert result.read_bytes() == b"mine"
    result.with_suffix(".json").write_text('{"name": "stale"}')
    assert optimise(model, "--force")[0] == 0
    assert not result.with_suffix(".json").exists()
    result.unlink()
    result.with_suffix(".json").write_text("{}")
    assert optimise(model)[0] == 5


def test_nothing_is_left_behind_when_it_fails(
    model: Path, images: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "time_alternately", fail)
    before = sorted(model.parent.iterdir())
    assert main(["models", "optimize", "--quiet", str(model)]) == 130
    assert sorted(model.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--precision", "int8"], 2, "--precision int8 needs --images DIR"),
        (["--precision", "fp16"], 2, "--precision fp16 is for a GPU"),
        (["--precision", "int8", "--for", "gpu"], 2, "--precision int8 is for the CPU"),
        (["--to", "result.pt"], 2, "--to result.pt: expected a name that ends in .onnx"),
        (["--images", "nowhere"], 2, "nowhere: No such file"),
        (["--images", "."], 2, "contains no image"),
    ],
)
def test_impossible_options_are_refused_before_a_model_is_loaded(
    model: Path,
    optimise: Optimise,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(model.parent)
    found, answer = optimise(model, *arguments)
    assert found == code
    assert answer["error"].startswith("streamer models optimize: ")
    assert said in answer["error"]
    assert not list(model.parent.glob("*.fp*"))


def test_the_original_is_never_the_target(model: Path, optimise: Optimise) -> None:
    before = model.read_bytes()
    code, answer = optimise(model, "--to", model, "--force")
    assert code == 2
    assert "is the original itself" in answer["error"]
    assert model.read_bytes() == before


def test_images_that_the_service_would_refuse_are_left_out(
    model: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "a.png").write_bytes(b"GIF89a")
    (images / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    assert main(["models", "optimize", str(model), "--images", str(images)]) == 0
    said = capsys.readouterr()
    assert "left out: a.png: " in said.err
    assert "left out: b.jpg: " in said.err
    assert "20 images" in said.out
    for path in images.glob("[0-9]*"):
        path.unlink()
    assert main(["models", "optimize", str(model), "--images", str(images), "--force"]) == 2
    assert "the service would refuse all images" in capsys.readouterr().err


def test_an_original_that_the_service_refuses_is_refused(tmp_path: Path, optimise: Optimise) -> None:
    code, answer = optimise(tmp_path / "nowhere.onnx")
    assert code == 4
    assert "no such file" in answer["error"]
    code, answer = optimise(faulty_models.unknown_operator_model(tmp_path / "odd.onnx"))
    assert code == 4
    assert "Frobnicate" in answer["error"]


def test_a_model_without_layers_has_nothing_to_quantise(
    tmp_path: Path, images: Path, optimise: Optimise
) -> None:
    path = factory.constant_model(tmp_path / "m.onnx", {"o": factory.yolo_rows((), 1)})
    code, answer = optimise(path, "--precision", "int8", "--images", images)
    assert code == 2
    assert "no layers before its head" in answer["error"]


def test_without_onnx_the_message_says_how_to_install_it(
    model: Path, optimise: Optimise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, answer = optimise(model)
    assert code == 8
    assert "pip install 'real-time-vision-api[optimize]'" in answer["error"]
