"""TensorRT's engines are kept for what they fit, shared by replicas, and never a reason not to start.

No test here builds an engine: that needs a GPU. What they check are the keys and the files.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.core import device as devices
from inference.engine import engine_cache, onnx_session, process
from inference.engine.detector import Detector
from inference.engine.engine_cache import EngineFolder, EngineKey, EngineSource, Platform, read_platform
from inference.engine.validation_run import load_refusal
from tests.helpers.model_factory import null_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_folders() -> Iterator[None]:
    """Forget the folders of a test, as the end of its process would."""
    yield
    engine_cache._opened.clear()


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


PLATFORM = Platform("NVIDIA L4", "8.9", 58, "101300", "1.31.0")
KEY = EngineKey(PLATFORM, "a" * 64, ("x:1x3x64x64", "x:8x3x64x64"))


def opened(cache: Path, key: EngineKey = KEY) -> EngineFolder:
    folder = EngineFolder.open(cache, key)
    assert folder is not None
    return folder


def published(cache: Path, key: EngineKey = KEY) -> dict[str, bytes]:
    files = (cache / key.folder_name).iterdir()
    return {file.name: file.read_bytes() for file in files if file.name != "key.json"}


def test_whatever_decides_whether_an_engine_fits_is_part_of_the_key() -> None:
    others = [
        replace(KEY, platform=platform)
        for platform in (
            replace(PLATFORM, gpu="NVIDIA L40"),
            replace(PLATFORM, compute_capability="9.0"),
            replace(PLATFORM, multiprocessors=132),
            replace(PLATFORM, tensorrt="101301"),
            replace(PLATFORM, onnxruntime="1.32.0"),
        )
    ]
    others += [
        replace(KEY, model_sha256="b" * 64),
        replace(KEY, profile=("x:1x3x64x64", "x:16x3x64x64")),
        replace(KEY, profile=None),
        replace(KEY, precision="fp16"),
    ]
    names = {key.folder_name for key in (KEY, *others)}
    assert len(names) == 1 + len(others)
    assert KEY.folder_name.startswith("nvidia-l4-sm8.9-aaaaaaaaaaaa-")
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in names)
    assert replace(KEY).folder_name == KEY.folder_name


def test_what_one_replica_builds_another_finds(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert not first.has_engines
    (first.path / "graph_sm89.engine").write_bytes(b"engine")
    assert published(tmp_path) == {}, "nothing is visible before it is complete"
    first.publish()
    second = opened(tmp_path)
    assert second.has_engines
    assert (second.path / "graph_sm89.engine").read_bytes() == b"engine"
    assert not opened(tmp_path, replace(KEY, model_sha256="b" * 64)).has_engines
    stated = json.loads((tmp_path / KEY.folder_name / "key.json").read_text())
    assert stated["platform"]["gpu"] == "NVIDIA L4"
    assert stated["model_sha256"] == "a" * 64


def test_writing_to_a_copy_changes_no_other_replica(tmp_path: Path) -> None:
    first = opened(tmp_path)
    (first.path / "a.engine").write_bytes(b"one")
    first.publish()
    second = opened(tmp_path)
    with (second.path / "a.engine").open("wb") as stream:  # as onnxruntime does
        stream.write(b"half")
        stream.flush()
        assert opened(tmp_path).path.joinpath("a.engine").read_bytes() == b"one"
        stream.write(b" and half")
    second.publish()
    assert published(tmp_path) == {"a.engine": b"half and half"}


def test_engines_that_cannot_be_loaded_are_replaced(tmp_path: Path) -> None:
    first = opened(tmp_path)
    (first.path / "a.engine").write_bytes(b"broken")
    first.publish()
    second = opened(tmp_path)
    second.reject()
    assert list(second.path.glob("*.engine")) == []
    assert published(tmp_path) == {"a.engine": b"broken"}, (
        "a replica that fails for another reason removes nothing"
    )
    (second.path / "a.engine").write_bytes(b"rebuilt")
    second.publish()
    assert published(tmp_path) == {"a.engine": b"rebuilt"}


_BUILD = """
import sys
from pathlib import Path
from inference.engine.engine_cache import EngineFolder, EngineKey, Platform
key = EngineKey(Platform("NVIDIA L4", "8.9", 58, "101300", "1.31.0"), "a" * 64, None)
folder = EngineFolder.open(Path(sys.argv[1]), key)
sys.stdin.readline()
(folder.path / "a.engine").write_bytes(sys.argv[2].encode() * 1_000_000)
folder.publish()
"""


def test_replicas_that_build_at_once_leave_one_whole_engine(tmp_path: Path) -> None:
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", _BUILD, str(tmp_path), letter], stdin=subprocess.PIPE, cwd=ROOT
        )
        for letter in "xyz"
    ]
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write(b"\n")
        builder.stdin.close()
    assert [builder.wait(60) for builder in builders] == [0, 0, 0]
    found = published(tmp_path, replace(KEY, profile=None))
    assert list(found) == ["a.engine"]
    assert found["a.engine"] in [letter.encode() * 1_000_000 for letter in "xyz"]
    # The copies of processes that have ended are removed by the next one, those of others stay.
    mine = opened(tmp_path)
    assert list((tmp_path / ".in-use").iterdir()) == [mine.path]
    again = opened(tmp_path)
    assert {path.name for path in (tmp_path / ".in-use").iterdir()} == {mine.path.name, again.path.name}


def test_copies_of_other_machines_stay_for_a_day(tmp_path: Path) -> None:
    for name, age_s in (("other-1-aa", 3600.0), ("other-2-bb", 2 * 86_400.0)):
        copy = tmp_path / ".in-use" / name
        copy.mkdir(parents=True)
        (copy / ".lock").touch()
        os.utime(copy, (time.time() - age_s,) * 2)
    opened(tmp_path)
    names = {path.name for path in (tmp_path / ".in-use").iterdir()}
    assert "other-1-aa" in names
    assert "other-2-bb" not in names


def test_a_full_volume_is_no_reason_not_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = opened(tmp_path)
    (folder.path / "a.engine").write_bytes(b"engine")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    folder.publish()
    assert "cannot be kept" in caplog.text
    assert published(tmp_path) == {}, "and nothing half-written stays"
    assert EngineFolder.open(tmp_path, KEY) is None
    assert "so engines are not kept" in caplog.text


def test_without_a_driver_no_engines_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert read_platform("1.31.0") is None
    assert EngineSource(tmp_path, "a" * 64, None).open("1.31.0") is None
    assert EngineSource(None, "a" * 64, None).open("1.31.0") is None


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_detector_gets_the_engines_that_another_has_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    """A CPU session stands in for TensorRT, and a file that it writes for an engine."""
    model = null_model(tmp_path / "null.onnx", size=64)
    load, built = onnx_session.load_session, []

    def load_with_engine(path: Path, threads: int, providers: list[Any], model: bytes | None = None) -> Any:
        name, options = providers[0]
        if name == devices.PROVIDERS["tensorrt"]:
            engine = Path(options["trt_engine_cache_path"]) / "graph.engine"
            if not engine.exists():
                built.append(engine)
                engine.write_bytes(b"engine")
            elif engine.read_bytes() == b"broken":
                raise load_refusal(str(path), RuntimeError("could not deserialize engine"))
            session = load(path, threads, devices.chain("cpu"), model)
            monkeypatch.setattr(session, "get_providers", lambda: [name])
            return session
        return load(path, threads, providers, model)

    monkeypatch.setattr(onnx_session, "load_session", load_with_engine)
    monkeypatch.setattr(onnx_session, "loading_fault", lambda _: "")
    monkeypatch.setattr(devices, "driver_fault", lambda: "")
    monkeypatch.setattr(engine_cache, "read_platform", lambda _: PLATFORM)
    cache = tmp_path / "engines"

    def detect() -> None:
        found = Detector(model, version="v1", device="tensorrt", batch_max=4, engine_cache=cache)
        assert found.model.provider == "tensorrt"

    detect()
    (kept,) = cache.glob("nvidia-l4-*/graph.engine")
    assert len(built) == 1
    if is_broken:
        kept.write_bytes(b"broken")
    detect()
    assert len(built) == (2 if is_broken else 1)
    assert kept.read_bytes() == b"engine"
