"""Tests that the header of an ONNX file is read as the onnx package reads it, and damage is detected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.models.onnx_header import NotOnnx, licence_of, read_header
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import Input


def test_the_header_is_what_onnx_reads(tmp_path: Path) -> None:
    image = Input(width=96, height=64, name="pixels", metadata={"names": "{0: 'bäll'}", "licence": "MIT"})
    path = factory.blob_model(tmp_path / "m.onnx", image, opset=15)
    model = onnx.load(str(path))
    model.producer_name = "tests"
    model.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(model, str(path))
    header = read_header(path)
    assert (header.ir_version, header.producer, header.opset) == (8, "tests", 15)
    assert (header.input_name, header.input_shape) == ("pixels", (None, 3, 64, 96))
    assert header.metadata == {"names": "{0: 'bäll'}", "licence": "MIT"}


def test_dynamic_dimensions_are_none(tmp_path: Path) -> None:
    path = factory.constant_model(
        tmp_path / "m.onnx", {"o": np.zeros((1, 5, 84), np.float32)}, Input(dynamic_size=True, batch=2)
    )
    assert read_header(path).input_shape == (2, 3, None, None)


def test_real_models_are_read(yolox_nano: Path, yolov9t_ball: Path) -> None:
    assert read_header(yolox_nano).input_shape == (1, 3, 416, 416)
    header = read_header(yolov9t_ball)
    assert (header.opset, header.producer) == (17, "pytorch")
    assert header.metadata["names"] == "{0: 'ball'}"
    assert licence_of(header.metadata) == "AGPL-3.0"


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    whole = factory.null_model(tmp_path / "m.onnx", size=64).read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(whole) - 40, 97):
        cut.write_bytes(whole[:length])
        with pytest.raises(NotOnnx):
            read_header(cut)
    noted = factory.blob_model(tmp_path / "n.onnx", Input(metadata={"names": "{0: 'a'}"})).read_bytes()
    cut.write_bytes(noted[:-3])  # the cut is in the last field, after all required ones
    with pytest.raises(NotOnnx, match="a field ends after its message"):
        read_header(cut)


@pytest.mark.parametrize(
    "data", [b"", b"<!DOCTYPE html>", b"PK\x03\x04", bytes(1000), b"\xff" * 50, b"\x08" + b"\x80" * 30]
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(NotOnnx, match=r"not ONNX|not an ONNX"):
        read_header(tmp_path / "m.onnx")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_either_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    try:
        read_header(path)
    except NotOnnx:
        return


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"license": "AGPL-3.0 License (https://ultralytics.com/license)"}, "AGPL-3.0"),
        ({"licence": "Apache-2.0", "license": "other"}, "Apache-2.0"),
        ({"license": "MIT (see LICENSE)"}, "MIT"),
        ({"license": ""}, None),
        ({}, None),
    ],
)
def test_licences_are_shortened_to_their_identifier(metadata: dict[str, str], licence: str | None) -> None:
    assert licence_of(metadata) == licence
