"""Tests that the head of a graph is found, and what float16, int8 and rounding-switch graphs compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference.core.errors import ModelRefused
from streamer.model_tools import graph
from streamer.model_tools.float16 import to_float16
from streamer.model_tools.graph import Topology, head_of, layers_of
from streamer.model_tools.layer_sensitivity import SWITCH, round_weights, with_rounding_switch
from streamer.model_tools.quantiser import plan_of, quantise
from streamer.model_zoo.download_url import CannotWrite
from tests.helpers import model_factory as factory

FRAME = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
HEAD = {
    *(f"head_{stride}{part}" for stride in (8, 16, 32) for part in ("", "_rows")),
    *("all", "offsets", "logits", "boxes", "scores", "output0", "pooled_16", "pooled_32"),
}


@pytest.fixture
def model(tmp_path: Path) -> Any:
    return graph.read_graph(factory.blob_model(tmp_path / "m.onnx"))


def run(model: Any, **feeds: Any) -> npt.NDArray[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: npt.NDArray[Any] = session.run(["output0"], {"images": FRAME} | feeds)[0]
    return result


def node(kind: str, inputs: list[str], output: str) -> Any:
    return helper.make_node(kind, inputs, [output], name=output)


def graph_of(nodes: list[Any], weights: list[str]) -> Any:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    constants = [numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), name) for name in weights]
    return helper.make_model(helper.make_graph(nodes, "g", [value], [], constants))


def test_the_head_begins_with_the_last_layers(model: Any) -> None:
    # Two layers of the head follow the pools, so `head_of` does not count the pools as part of the head.
    assert head_of(model) == HEAD - {"pooled_16", "pooled_32"}
    assert [layer.name for layer in layers_of(model)] == ["first", "second", "head_8", "head_16", "head_32"]


def test_the_mean_of_a_distribution_is_no_layer() -> None:
    nodes = [
        node("Conv", ["x", "a"], "hidden"),
        node("Conv", ["hidden", "b"], "last"),
        node("Reshape", ["last", "shape"], "bins"),
        node("Softmax", ["bins"], "shares"),
        node("Transpose", ["shares"], "turned"),
        node("Conv", ["turned", "steps"], "mean"),
    ]
    made = graph_of(nodes, ["a", "b", "steps"])
    assert [layer.name for layer in layers_of(made)] == ["hidden", "last"]
    assert head_of(made) == {"last", "bins", "shares", "turned", "mean"}


def test_products_of_activations_are_no_layers() -> None:
    made = graph_of([node("Conv", ["x", "a"], "keys"), node("MatMul", ["keys", "x"], "attention")], ["a"])
    assert [layer.name for layer in layers_of(made)] == ["keys"]


def test_a_layer_and_its_activation_are_one_unit(model: Any) -> None:
    topology = Topology(model)
    assert topology.unit_of(topology.producer["first"]) == {"first", "first_gate", "first_act"}
    assert topology.unit_of(topology.producer["head_8"]) == {"head_8"}


def test_half_precision_keeps_the_head_and_the_types_of_inputs_and_outputs(model: Any) -> None:
    half = to_float16(model)
    onnx.checker.check_model(half, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert types["first_w_half"] == types["second_b_half"] == TensorProto.FLOAT16
    assert types["head_8_w"] == types["grid"] == TensorProto.FLOAT
    assert "first_w" not in types
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    before, after = run(model), run(half)
    assert after.dtype == np.float32
    assert after == pytest.approx(before, abs=5e-3)
    # Boxes come from constants of the head. Float16 would round them to half a pixel, so they stay float32.
    assert (after[:, :4] == before[:, :4]).all()


def test_half_precision_keeps_operators_that_require_float32() -> None:
    nodes = [
        node("Conv", ["x", "a"], "hidden"),
        helper.make_node("Resize", ["hidden", "", "scales"], ["larger"], name="larger"),
        helper.make_node("TopK", ["larger", "k"], ["top", "index"], name="top"),
        node("Conv", ["top", "b"], "next"),
        node("Conv", ["next", "c"], "last"),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])
    result = helper.make_tensor_value_info("last", TensorProto.FLOAT, [1, 2, 8, 4])
    weights = [numpy_helper.from_array(np.ones((2, 2, 1, 1), np.float32), name) for name in "abc"]
    extras = [
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        numpy_helper.from_array(np.array([4], np.int64), "k"),
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "g", [value], [result], [*weights, *extras]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    half = to_float16(made)
    onnx.checker.check_model(half, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert types["scales"] == TensorProto.FLOAT
    assert types["b_half"] == TensorProto.FLOAT16
    casts = {entry.input[0]: entry.attribute[0].i for entry in half.graph.node if entry.op_type == "Cast"}
    assert casts == {
        "x": TensorProto.FLOAT16,
        "larger": TensorProto.FLOAT,
        "top": TensorProto.FLOAT16,
        "next": TensorProto.FLOAT,
    }


def test_weights_beyond_the_range_of_float16_are_clipped(model: Any) -> None:
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "first_w")
    weights.CopyFrom(numpy_helper.from_array(np.full((8, 3, 8, 8), 1e6, np.float32), "first_w"))
    half = to_float16(model)
    made = next(tensor for tensor in half.graph.initializer if tensor.name == "first_w_half")
    assert np.isfinite(numpy_helper.to_array(made)).all()


def test_a_switch_rounds_one_layer_at_a_time(model: Any) -> None:
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "second_w")
    uneven = np.random.default_rng(1).normal(0, 0.05, (8, 8, 1, 1)).astype(np.float32)
    uneven[0, 0] = 1.0
    weights.CopyFrom(numpy_helper.from_array(uneven, "second_w"))
    ranges = {"images": (0.0, 1.0), "first": (-4.0, 4.0), "first_act": (-0.3, 4.0), "second": (-4.0, 4.0)}
    made = with_rounding_switch(model, ["first", "second"], ranges)
    onnx.checker.check_model(made, full_check=True)
    plain = run(model)
    off, first, second = (run(made, **{SWITCH: np.array(index, np.int64)}) for index in (-1, 0, 1))
    assert off == pytest.approx(plain, abs=1e-6)
    assert 1e-5 < np.abs(first - plain).max() < 0.2
    assert 1e-5 < np.abs(second - plain).max() < 0.2
    assert np.abs(first - second).max() > 1e-5


def test_weights_are_rounded_per_channel() -> None:
    weights = np.array([[1.0, 0.501], [100.0, 0.3]], np.float32)
    by_rows = round_weights(weights, 0)
    assert by_rows[0] == pytest.approx([1.0, 0.5], abs=0.01)
    assert by_rows[1] == pytest.approx([100.0, 0.0])
    assert round_weights(weights, 1)[:, 1] == pytest.approx([0.501, 0.3], abs=0.005)
    assert (round_weights(np.zeros((2, 2), np.float32), 0) == 0).all()


def test_quantisation_stops_before_the_head(model: Any) -> None:
    plan = plan_of(model)
    assert set(plan.nodes) == {
        *("first", "first_gate", "first_act", "second", "second_gate", "second_act"),
        *("pooled_16", "pooled_32"),
    }
    made = quantise(model, plan, dict.fromkeys(plan.tensors, (-4.0, 4.0)))
    onnx.checker.check_model(made)
    topology = Topology(made)
    rounded = {name.split("_Quantize")[0] for name in topology.producer if "QuantizeLinear" in name}
    assert not {"head_8", "all", "boxes", "scores", "output0"} & rounded
    assert topology.producer["output0"].input[:] == ["boxes", "scores"]
    assert {tensor.data_type for tensor in made.graph.initializer if "first_w" in tensor.name} >= {
        TensorProto.INT8
    }


def test_layers_that_are_left_out_keep_their_weights(model: Any) -> None:
    plan = plan_of(model)
    ranges = dict.fromkeys(plan.tensors, (-4.0, 4.0))
    topology = Topology(model)
    made = quantise(model, plan, ranges, topology.unit_of(topology.producer["second"]))
    names = {tensor.name for tensor in made.graph.initializer}
    assert "second_w" in names
    assert "first_w" not in names


def test_names_become_unique_unused_opsets_go_and_metadata_is_replaced(model: Any) -> None:
    model.graph.node[0].name = ""
    model.graph.node[1].name = model.graph.node[2].name
    model.opset_import.add(domain="com.microsoft", version=1)
    graph.with_names(model)
    names = [entry.name for entry in model.graph.node]
    assert len(set(names)) == len(names)
    graph.without_unused_opsets(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    graph.set_metadata(model, {"a": "1"})
    graph.set_metadata(model, {"b": "2"})
    assert graph.metadata_of(model) == {"b": "2"}


def test_old_opsets_are_converted_or_refused(tmp_path: Path) -> None:
    path = factory.blob_model(tmp_path / "old.onnx", opset=11)
    old = graph.read_graph(path)
    new = graph.with_newer_opset(old, path)
    assert (graph.opset_of(old), graph.opset_of(new)) == (11, 17)
    assert run(new) == pytest.approx(run(old), abs=1e-5)
    old.graph.node[0].op_type = "Frobnicate"
    with pytest.raises(ModelRefused, match=r"old\.onnx: expected opset 13.*found opset 11.*opset=17"):
        graph.with_newer_opset(old, path)


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path, model: Any) -> None:
    (tmp_path / "x.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelRefused, match=r"x\.onnx: expected an ONNX model that can be edited"):
        graph.read_graph(tmp_path / "x.onnx")
    with pytest.raises(CannotWrite, match="nowhere"):
        graph.write_graph(model, tmp_path / "nowhere" / "x.onnx")
