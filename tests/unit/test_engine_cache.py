"""The service creates the folder of TensorRT engines, and does without it where it cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.engine import process


def test_a_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    assert process._folder(str(tmp_path / "cache" / "engines")) == tmp_path / "cache" / "engines"
    assert (tmp_path / "cache" / "engines").is_dir()


def test_one_that_cannot_be_written_is_no_reason_not_to_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert process._folder(str(tmp_path / "file" / "engines")) is None
    assert f"ENGINE_CACHE_DIR={tmp_path}/file/engines" in caplog.text


def test_unset_none_is_kept() -> None:
    assert process._folder("") is None
