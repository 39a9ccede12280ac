"""Tests that copies of served models are complete, unchanged since loading, and within the size limit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inference.models.model_copies import ModelCopies, differs
from inference.models.onnx_header import external_files
from tests.helpers.faulty_models import external_data_model
from tests.helpers.model_factory import PLAIN, colour_model


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "given").mkdir()
    return colour_model(tmp_path / "given" / "model.onnx", PLAIN)


def test_a_copy_has_the_files_name_and_its_manifest(tmp_path: Path, model: Path) -> None:
    model.with_suffix(".json").write_text("{}")
    kept = ModelCopies(str(tmp_path), 1 << 30)
    assert kept.of("v1", model) is None
    sha256 = digest(model)
    kept.keep("v1", model, sha256)
    copy = kept.of("v1", model)
    assert copy is not None
    assert copy.name == model.name
    model.write_bytes(b"truncated in place")
    assert digest(copy) == sha256
    assert copy.with_suffix(".json").read_text() == "{}"
    assert differs(model, sha256)
    model.unlink()
    assert differs(model, sha256)


def test_external_data_is_copied_too_and_nothing_from_outside(tmp_path: Path) -> None:
    (tmp_path / "given" / "parts").mkdir(parents=True)
    model = external_data_model(tmp_path / "given" / "model.onnx", "parts/weights.bin")
    (tmp_path / "given" / "parts" / "weights.bin").write_bytes(b"w" * 1000)
    assert external_files(model) == {"parts/weights.bin"}
    kept = ModelCopies(str(tmp_path), 1 << 30)
    kept.keep("v1", model, digest(model))
    copy = kept.of("v1", model)
    assert copy is not None
    assert (copy.parent / "parts" / "weights.bin").read_bytes() == b"w" * 1000
    for outside in ("../secret", "/etc/hostname"):
        assert external_files(external_data_model(tmp_path / "given" / "other.onnx", outside)) == set()


def test_what_is_too_large_or_changed_is_not_kept_and_leaves_nothing(tmp_path: Path, model: Path) -> None:
    size = model.stat().st_size
    small = ModelCopies(str(tmp_path), size - 1)
    with pytest.raises(OSError, match="MODEL_KEEP_MAX_BYTES"):
        small.keep("v1", model, digest(model))
    two = ModelCopies(str(tmp_path), 2 * size - 1)
    two.keep("v1", model, digest(model))
    with pytest.raises(OSError, match="MODEL_KEEP_MAX_BYTES"):
        two.keep("v2", model, digest(model))
    ample = ModelCopies(str(tmp_path), 1 << 30)
    with pytest.raises(ValueError, match="changed since it was loaded"):
        ample.keep("v2", model, "0" * 64)
    assert ample.of("v2", model) is None
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["v1"]


def test_without_a_folder_nothing_is_kept(model: Path) -> None:
    kept = ModelCopies("", 1 << 30)
    kept.keep("v1", model, digest(model))
    kept.start_copying({"v1": model}, {"v1": digest(model)})
    assert kept.of("v1", model) is None
