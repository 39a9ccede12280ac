"""``streamer models optimize`` refuses what it cannot do, and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamer.cli.main import main
from streamer.model_tools import comparison
from tests.helpers import faulty_models
from tests.helpers import model_factory as factory
from tests.helpers.optimise_command import Optimise

pytestmark = pytest.mark.usefixtures("short_timing")


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
