"""The detector loads an edited model in place of a file only where that helps; editing never raises."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine import onnx_session as module
from inference.engine.detector import Detector
from inference.graph.cpu_model import CpuModel, read_cpu_model
from tests.helpers import model_factory as factory
from tests.helpers import network_factory


def test_other_files_are_none_of_its_business(tmp_path: Path) -> None:
    assert read_cpu_model(factory.colour_model(tmp_path / "a.onnx")) is None
    assert read_cpu_model(tmp_path / "absent.onnx") is None
    for content in (b"", b"<html>", b"\x00" * 100, b"\xff" * 100):
        (tmp_path / "b.onnx").write_bytes(content)
        assert read_cpu_model(tmp_path / "b.onnx") is None
    path = network_factory.yolox_network(tmp_path / "c.onnx")
    assert read_cpu_model(path) is not None
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="weights", size_threshold=0)
    assert read_cpu_model(path) is None


def test_constants_in_other_files_are_seen_in_nodes_too(tmp_path: Path) -> None:
    path = network_factory.focus_model(tmp_path / "m.onnx", as_nodes=True)
    model = onnx.load(str(path))
    constant = next(node for node in model.graph.node if node.op_type == "Constant")
    onnx.external_data_helper.set_external_data(constant.attribute[0].t, "w.bin", 0, 8)
    constant.attribute[0].t.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    assert read_cpu_model(path) is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return [
        network_factory.focus_model(folder / "focus.onnx").read_bytes(),
        network_factory.yolox_network(folder / "fixed.onnx").read_bytes(),
        network_factory.yolox_network(
            folder / "measured.onnx", form=network_factory.HeadForm.MEASURED
        ).read_bytes(),
    ]


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damaged_files_raise_nothing(
    whole: list[bytes], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    model = data.draw(st.sampled_from(whole))
    end = data.draw(st.sampled_from((len(model), data.draw(st.integers(0, len(model))))))
    place = data.draw(st.integers(0, len(model) - 1))
    path.write_bytes(model[:place] + bytes([data.draw(st.integers(0, 255))]) + model[place + 1 : end])
    read_cpu_model(path)


def test_an_edit_that_onnxruntime_refuses_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = network_factory.yolox_network(tmp_path / "m.onnx")
    (tmp_path / "m.json").write_text('{"labels": ["a", "b", "c"]}')

    def broken(path: Path, *, opened: bool = True) -> CpuModel | None:
        edited = read_cpu_model(path, opened=opened)
        assert edited is not None
        return CpuModel(edited.model[:-100], edited.stem, edited.head)

    monkeypatch.setattr(module, "read_cpu_model", broken)
    with caplog.at_level(logging.WARNING):
        detector = Detector(path, version="v1", device="cpu", batch_max=1)
    assert "is loaded unedited" in caplog.text
    detector.warm_up()
    grey = np.full((64, 64, 3), 114, np.uint8)
    assert len(detector.infer([grey], thread=0).arrays) == 1
