"""Tests that several max-pools of one tensor become a chain with equal results, and other pools stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from inference.graph.cpu_model import read_cpu_model
from tests.helpers import network_factory
from tests.helpers.model_factory import Input

Arrays = list[np.ndarray[Any, Any]]


def run(model: Path | bytes, image: np.ndarray[Any, Any]) -> Arrays:
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, {"images": image})]


@settings(max_examples=40, deadline=None)
@given(
    windows=st.lists(st.integers(1, 10).map(lambda half: 2 * half + 1), min_size=2, max_size=5, unique=True),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    seed=st.integers(0, 99),
)
def test_a_chain_finds_the_very_same_maxima(
    tmp_path_factory: pytest.TempPathFactory, windows: list[int], height: int, width: int, seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "pyramid.onnx"
    network_factory.pyramid_model(path, windows, Input(width=width, height=height))
    edited = read_cpu_model(path)
    assert edited is not None
    model = onnx.load_from_string(edited.model)
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.node[0].input[0] == "images"
    assert sum(node.input[0] == "images" for node in model.graph.node) == 1
    image = np.random.default_rng(seed).normal(size=(2, 3, height, width)).astype(np.float32)
    for found, expected in zip(run(edited.model, image), run(path, image), strict=True):
        assert np.array_equal(found, expected)


def test_who_reads_a_pool_before_the_smaller_ones_are_made_still_can(tmp_path: Path) -> None:
    path = network_factory.pyramid_model(tmp_path / "m.onnx", (13, 5, 9))
    model = onnx.load(str(path))
    model.graph.node.insert(1, helper.make_node("Neg", ["pool_13"], ["least"]))
    model.graph.output.append(helper.make_tensor_value_info("least", onnx.TensorProto.FLOAT, [None] * 4))
    onnx.save(model, str(path))
    edited = read_cpu_model(path)
    assert edited is not None
    onnx.checker.check_model(onnx.load_from_string(edited.model))
    image = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    assert all(map(np.array_equal, run(edited.model, image), run(path, image)))


@pytest.mark.parametrize(
    ("windows", "attributes"),
    [
        ((5,), {}),
        ((5, 5), {}),
        ((4, 6), {"pads": [2, 2, 1, 1]}),
        ((5, 9), {"strides": [2, 2]}),
        ((5, 9), {"dilations": [2, 2]}),
        ((5, 9), {"ceil_mode": 1}),
        ((5, 9), {"pads": [2, 2, 2, 2]}),
        ((5, 9), {"pads": None, "auto_pad": "SAME_UPPER"}),
        ((5, 9), {"kernel_shape": [5, 3]}),
    ],
    ids=str,
)
def test_other_pools_stay(tmp_path: Path, windows: tuple[int, ...], attributes: dict[str, Any]) -> None:
    assert read_cpu_model(network_factory.pyramid_model(tmp_path / "m.onnx", windows, **attributes)) is None


def test_pools_of_another_domain_stay(tmp_path: Path) -> None:
    path = network_factory.pyramid_model(tmp_path / "m.onnx", (5, 9))
    model = onnx.load(str(path))
    model.graph.node[1].domain = "my.own"
    onnx.save(model, str(path))
    assert read_cpu_model(path) is None


def test_quantized_pools_stay(tmp_path: Path) -> None:
    path = network_factory.pyramid_model(tmp_path / "m.onnx", (5, 9))
    model = onnx.load(str(path))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1).reshape(()), "scale"))
    model.graph.node.append(helper.make_node("QuantizeLinear", ["pool_5", "scale"], ["quantized"]))
    model.graph.output.append(helper.make_tensor_value_info("quantized", onnx.TensorProto.UINT8, None))
    onnx.save(model, str(path))
    assert read_cpu_model(path) is None
