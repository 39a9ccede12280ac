"""``streamer models check`` reports on files that the service accepts and on files that it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.cli import models
from streamer.cli.main import main
from streamer.simulation.streams.run_times import read_run_times
from tests.helpers import faulty_models
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import OBJECTS, Input

#: Each text is part of the reason for which the command refuses the file that the function makes.
REFUSED: dict[str, Callable[[Path], Path]] = {
    "no such file": lambda path: path,
    "a web page": lambda path: _with(path, b"<!DOCTYPE html><p>Not found"),
    "a Git LFS pointer": lambda path: _with(path, b"version https://git-lfs.github.com/spec/v1\n"),
    "a zip archive": lambda path: _with(path, b"PK\x03\x04best.pt"),
    "truncated, damaged or not ONNX": lambda path: _with(path, b"\x08\x07" + b"x" * 99),
    "Frobnicate": faulty_models.unknown_operator_model,
    "[1, 7, 7, 5]": lambda path: factory.constant_model(path, {"o": np.zeros((1, 7, 7, 5), np.float32)}),
    "task `segment`": lambda path: factory.constant_model(
        path, {"o": factory.yolo_rows((), 1)}, Input(metadata={"task": "segment"})
    ),
}


def _with(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def check(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["models", "check", "--device", "cpu", "--quiet", *map(str, arguments)])
    return code, capsys.readouterr().out


def check_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    code, text = check(capsys, "--json", *arguments)
    answer: dict[str, Any] = json.loads(text)
    return code, answer


def test_a_served_file_is_described(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = Input(metadata={"names": "{0: 'blob'}", "licence": "MIT"})
    path = factory.blob_model(tmp_path / "blob.onnx", image)
    (tmp_path / "blob.json").write_text('{"batch_max": 4, "name": "blobs"}')
    code, text = check(capsys, path)
    assert code == 0
    for said in (
        f"{path}: served as yolo\n",
        "opset 17, IR 8",
        "`images` float32 [dynamic, 3, 64, 64]",
        "64x64, centred, border 114, RGB, times 0.00392157",
        "`output0` float32 [dynamic, 5, 84]",
        "dynamic: run as 1, 2, 4",
        "1, named by the metadata: blob",
        "blob.json: name, batch_max",
        "licence   MIT",
        "With these times the service forms batches of ",
        "For `streamer simulate streams`: --run-times 1:",
    ):
        assert said in text
    rows = [line.split() for line in text.splitlines() if " ms " in line]
    assert [row[0] for row in rows] == ["1", "2", "4"]


def test_json_has_the_same_content_and_the_times_of_each_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    path = factory.blob_model(tmp_path / "blob.onnx")
    code, answer = check_json(capsys, path, "--batch-max", 2)
    assert code == 0
    assert (answer["served"], answer["family"], answer["batch"]) == (True, "yolo", None)
    assert answer["bytes"] == path.stat().st_size
    assert [timing["batch"] for timing in answer["timings"]] == [1, 2]
    assert all(timing["one_core_ms"] > 0 and timing["all_cores_ms"] > 0 for timing in answer["timings"])
    assert answer["cores"] == 2
    assert (answer["at_once"]["threads"], answer["at_once"]["batch"]) == (2, answer["batches_formed"][-1])
    assert answer["at_once"]["ms"] > 0
    assert answer["wake_up_ms"] >= 0
    (tmp_path / "times.json").write_text(json.dumps(answer))
    times = read_run_times(str(tmp_path / "times.json"))
    assert (tuple(times.cost_ms), times.provider, times.cores) == ((1, 2), "cpu", 2)
    assert times.all_cores_ms == answer["timings"][0]["all_cores_ms"]
    assert 0 < times.core_efficiency <= 1
    assert any("has no class names" in remark for remark in answer["remarks"])
    assert any("No licence" in remark for remark in answer["remarks"])
    code, answer = check_json(capsys, path, "--no-timing")
    assert (code, answer["timings"], answer["at_once"]) == (0, [], None)


def test_on_one_core_there_is_one_column_of_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    _, answer = check_json(capsys, factory.blob_model(tmp_path / "blob.onnx"))
    assert {timing["all_cores_ms"] for timing in answer["timings"]} == {None}
    assert answer["at_once"] is None


def test_remarks_say_what_could_be_better(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = factory.yolo_rows(OBJECTS, 80).astype(np.float16)
    path = factory.constant_model(tmp_path / "m.onnx", {"o": rows}, Input(dtype=np.float16, batch=2))
    _, answer = check_json(capsys, path, "--no-timing")
    assert (answer["batch"], answer["labels"][0]) == (2, "person")
    remarks = " ".join(answer["remarks"])
    assert "taken for COCO's, by their number" in remarks
    assert "Half precision is for GPUs" in remarks
    size = factory.constant_model(
        tmp_path / "n.onnx",
        {"o": factory.yolo_rows((), 1, Input(width=640, height=640))},
        Input(dynamic_size=True),
    )
    _, answer = check_json(capsys, size, "--no-timing")
    assert (
        "The input size is dynamic, and neither manifest nor metadata sets it, so it is 640x640"
        in " ".join(answer["remarks"])
    )


@pytest.mark.parametrize("found", REFUSED)
def test_a_refusal_says_what_is_wrong_and_how_to_fix_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], found: str
) -> None:
    path = REFUSED[found](tmp_path / "m.onnx")
    code, text = check(capsys, path)
    assert code == 4
    assert text.startswith(f"{path}: refused\n")
    lines = {line.split()[0]: line for line in text.splitlines()[1:] if line.startswith("  ")}
    assert found in lines["found"]
    assert len(lines["expected"].split(maxsplit=1)) == 2
    assert "  fix " in text
    assert ("Commands that export" in text) is path.exists()
    code, answer = check_json(capsys, path)
    assert code == 4
    assert answer["served"] is False
    assert found in answer["refusal"]["found"]


def test_a_wrong_manifest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = factory.blob_model(tmp_path / "blob.onnx")
    (tmp_path / "blob.json").write_text('{"colour": "pink"}')
    code, text = check(capsys, path)
    assert code == 4
    assert f"wrong in  {tmp_path / 'blob.json'}" in text
    (tmp_path / "blob.json").write_text(json.dumps({"sha256": "0" * 64}))
    code, answer = check_json(capsys, path)
    assert code == 4
    assert answer["sha256"] in answer["refusal"]["found"]


def test_a_batch_that_is_dynamic_by_name_only_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = check(capsys, faulty_models.fixed_reshape_model(tmp_path / "yolox.onnx"))
    assert code == 4
    assert '"batch_max": 1' in text
    assert "tools/export_onnx.py -n yolox-nano" in text
    assert "yolo export" not in text.partition("Commands that export")[2]


def test_a_known_model_is_recognised_by_its_checksum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = factory.blob_model(tmp_path / "renamed.onnx")
    monkeypatch.setattr(models, "_known_as", lambda digest: "yolox_s" if len(digest) == 64 else None)
    assert "(the known model yolox_s)" in check(capsys, path, "--no-timing")[1]
    assert check_json(capsys, path, "--no-timing")[1]["known_as"] == "yolox_s"


def test_a_missing_device_has_its_own_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = factory.blob_model(tmp_path / "blob.onnx")
    assert main(["models", "check", str(path), "--device", "openvino", "--quiet"]) == 8
    assert "DEVICE is 'openvino'" in capsys.readouterr().err


def test_a_real_model_is_checked(yolox_nano: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = check_json(capsys, yolox_nano)
    assert code == 0
    assert (answer["family"], answer["batch"], len(answer["labels"])) == ("yolox", 1, 80)
    assert (answer["opset"], answer["ir_version"], answer["producer"]) == (11, 6, "pytorch")
    assert [timing["batch"] for timing in answer["timings"]] == [1]
