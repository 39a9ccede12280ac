"""A model is promoted if it is not worse; the place changes in one step, with its manifest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from inference.models.manifest import read_manifest
from streamer.promotion.installation import install
from streamer.promotion.judgement import Change, Figures, Judgement


def figures(map50: float) -> Figures:
    return Figures("m", "ab" * 32, map50, map50 / 2, {"mug": map50, "key": None}, None)


def judgement(change: float, width: float = 0.01, margin: float = 0.02) -> Judgement:
    return Judgement(
        figures(0.8 + change), figures(0.8), Change(change, change - width, change + width), margin, ()
    )


@pytest.mark.parametrize(
    ("change", "width", "worse", "text"),
    [
        (0.1, 0.05, False, "better: mAP50 0.900 against 0.800 (+0.100, 95 % interval +0.050 to +0.150)"),
        (0.0, 0.01, False, "not worse: mAP50 0.800 against 0.800 (+0.000, 95 % interval -0.010 to +0.010)"),
        (-0.01, 0.05, False, "; it may be worse by more than the margin"),
        (-0.03, 0.05, True, "which is more than 0.02 lower"),
    ],
)
def test_a_model_is_worse_if_it_is_lower_by_more_than_the_margin(
    change: float, width: float, worse: bool, text: str
) -> None:
    judged = judgement(change, width)
    assert judged.is_worse is worse
    assert text in judged.text


def test_a_model_with_nothing_to_compare_is_not_worse() -> None:
    judged = Judgement(figures(0.3), None, None, 0.02, ("barcode",))
    assert not judged.is_worse
    assert "nothing to compare" in judged.text


def model(folder: Path, content: bytes) -> tuple[Path, str]:
    path = folder / "own.onnx"
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def served(place: Path) -> tuple[bytes, Any]:
    """Return what a service that starts now would read."""
    path = place.resolve()
    return path.read_bytes(), read_manifest(path)


def test_model_and_manifest_change_in_one_step_and_the_model_before_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "models" / "yolov9_v2.onnx"
    place.parent.mkdir()
    place.write_bytes(b"zero")
    place.with_suffix(".json").write_text('{"name": "zero"}')
    path, one = model(tmp_path, b"one")
    first = install(path, {"name": "one"}, one, place)
    assert first.previous is not None
    assert (first.previous.read_bytes(), read_manifest(first.previous).name) == (b"zero", "zero")
    content, manifest = served(place)
    assert (content, manifest.name, manifest.sha256) == (b"one", "one", one)
    assert json.loads(place.with_suffix(".json").read_text())["name"] == "one"

    path, digest = model(tmp_path, b"two")
    second = install(path, {"name": "two"}, digest, place)
    assert second.previous == first.file.resolve()
    assert served(place)[0] == b"two"

    # Back to an earlier one, whose file is already there.
    back = install(first.file, {"name": "one"}, one, place)
    assert served(place)[0] == b"one"
    assert back.previous == second.file.resolve()


def test_an_installation_that_fails_leaves_the_place_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "yolov9_v2.onnx"
    path, digest = model(tmp_path, b"one")
    install(path, {"name": "one"}, digest, place)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path, digest = model(tmp_path, b"two")
    for step in ("_copy", "write_durably", "_link"):
        with monkeypatch.context() as patch:
            patch.setattr(f"streamer.promotion.installation.{step}", full)
            with pytest.raises(OSError, match="No space left"):
                install(path, {"name": "two"}, digest, place)
        content, manifest = served(place)
        assert (content, manifest.name) == (b"one", "one")
