"""A network comes back from its ONNX file with the same outputs; any other file is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from streamer.assets import MODELS_DIR  # noqa: E402
from streamer.training.errors import NotRecoverable  # noqa: E402
from streamer.training.export import export  # noqa: E402
from streamer.training.network import Detector, Exported, Shape  # noqa: E402
from streamer.training.recovery import calibrate, recover, with_classes  # noqa: E402
from tests.conftest import shared  # noqa: E402

SMALL = Shape(stem=8, widths=(8, 16, 24, 32), depth=2, neck=(8, 16, 24), head=12)
NAMES = ("mug", "key", "sign")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    """Return a network with statistics as after some training, and its file."""
    torch.manual_seed(3)
    network = Detector(SMALL, len(NAMES)).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(4, 3, 64, 64))
    path = tmp_path_factory.mktemp("recovery") / "small.onnx"
    export(network.eval(), path, side=64, labels=NAMES)
    return network, path


@pytest.mark.parametrize("name", ["codes_v1", "codes_v2"])
def test_the_bundled_weights_compute_what_their_file_computes(name: str) -> None:
    path = MODELS_DIR / f"{name}.onnx"
    found = recover(path)
    assert found.labels == ("barcode", "qr_code", "data_matrix", "aztec", "pdf417")
    image = torch.rand(1, 3, found.side, found.side, generator=torch.Generator().manual_seed(7))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(None, {"images": image.numpy()})
    with torch.no_grad():
        ours = Exported(found.network, found.side)(image).numpy()
    assert np.abs(ours[:, :4] - wanted[:, :4]).max() < 0.01
    assert np.abs(ours[:, 4:] - wanted[:, 4:]).max() < 1e-5


def test_sizes_classes_and_outputs_of_any_network_of_the_trainer_come_back(
    small: tuple[Detector, Path],
) -> None:
    network, path = small
    found = recover(path)
    assert (found.network.shape, found.side, found.labels) == (SMALL, 64, NAMES)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for ours, wanted in zip(found.network(image), network(image), strict=True):
            assert torch.allclose(ours, wanted, atol=1e-4)


def test_calibration_changes_the_statistics_but_no_output(small: tuple[Detector, Path]) -> None:
    network = recover(small[1]).network
    images = torch.rand(6, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        calibrate(network, images)
        after = network(images)
        network.train()
        training = network(images)  # with the statistics of this batch, which are those of the calibration
    assert network.stem[0][1].running_mean.abs().max() > 0.01
    for one, two, three in zip(before, after, training, strict=True):
        assert torch.allclose(one, two, atol=1e-3)
        assert torch.allclose(one, three, atol=1e-2)


def test_classes_of_the_same_name_keep_their_rows(small: tuple[Detector, Path]) -> None:
    network = recover(small[1]).network
    made = with_classes(network, NAMES, ("sign", "spoon"))
    for old, new in zip(network.heads, made.heads, strict=True):
        assert torch.equal(new.to_classes.weight[0], old.to_classes.weight[2])
        assert not torch.equal(new.to_classes.weight[1], old.to_classes.weight[1])
        assert torch.equal(new.to_boxes.weight, old.to_boxes.weight)
    assert made.class_count == 2


def test_another_network_is_refused_with_what_was_found() -> None:
    with pytest.raises(
        NotRecoverable, match=r"yolox_nano\.onnx: expected the network of `streamer train`.*found \d+ conv"
    ):
        recover(shared("models/yolox_nano.onnx"))


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.onnx"
    path.write_bytes(b"<html>")
    with pytest.raises(NotRecoverable, match=r"page\.onnx: expected an ONNX file"):
        recover(path)


def test_half_precision_is_refused(small: tuple[Detector, Path], tmp_path: Path) -> None:
    model = onnx.load(str(small[1]))
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).astype(np.float16), weight.name)
    )
    path = tmp_path / "half.onnx"
    onnx.save(model, str(path))
    with pytest.raises(NotRecoverable, match="expected float32 weights; found float16"):
        recover(path)


def test_a_file_with_the_same_weights_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(MODELS_DIR / "codes_v1.onnx"))
    joined = next(n for n in model.graph.node if n.op_type == "Concat" and "stage4" in n.name)
    joined.input[:] = list(reversed(joined.input))
    path = tmp_path / "crossed.onnx"
    onnx.save(model, str(path))
    with pytest.raises(NotRecoverable, match="its outputs differ by"):
        recover(path)
