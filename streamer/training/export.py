"""Exports a trained network as an ONNX file with a manifest, after comparing its outputs with PyTorch."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from streamer.core.durable import write_durably
from streamer.training.network import Detector, Exported

_OPSET = 17
#: Largest differences from PyTorch that count as rounding errors: boxes in pixels, scores in 0..1.
_BOX_TOLERANCE, _SCORE_TOLERANCE = 0.05, 1e-3
_PUBLIC = 0o644


def export(
    network: Detector,
    path: Path,
    *,
    side: int,
    labels: Sequence[str],
    metadata: Mapping[str, str] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """Write the ONNX file at ``path`` and its manifest beside it.

    The network is in evaluation mode, on the CPU. ``side`` is the input side in pixels. ``metadata`` and
    ``manifest`` are entries in addition to what both files say anyway. Raises ValueError, and writes neither
    file, when the results of onnxruntime and PyTorch differ.
    """
    part = path.with_name(f".{path.name}.part")
    model = Exported(network, side).eval()
    try:
        _write(model, part, side, labels, metadata or {})
        _check(model, part, side)
        data = part.read_bytes()
    finally:
        part.unlink(missing_ok=True)
    described = {
        "name": path.stem,
        "family": "yolo",
        "input": {"width": side, "height": side},
        "labels": list(labels),
        **(manifest or {}),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
    # A manifest with the digest of a file that is not there yet is refused, a model without its manifest is
    # not.
    manifest_path = path.with_suffix(".json")
    write_durably(manifest_path, text.encode(), manifest_path.with_name(f".{manifest_path.name}.part"))
    write_durably(path, data, part)
    for file in (manifest_path, path):
        file.chmod(_PUBLIC)


def _write(
    model: Exported, path: Path, side: int, labels: Sequence[str], metadata: Mapping[str, str]
) -> None:
    batch = {0: "batch"}
    with warnings.catch_warnings():
        # The old exporter traces the network, which suffices without control flow. The new one needs
        # onnxscript.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, side, side),),
            str(path),
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": batch, "output0": batch},
            opset_version=_OPSET,
            dynamo=False,
        )
    graph = onnx.load(str(path))
    entries = {
        "names": json.dumps(dict(enumerate(labels)), ensure_ascii=False),
        "imgsz": json.dumps([side, side]),
        "stride": "32",
        "task": "detect",
        **metadata,
    }
    onnx.helper.set_model_props(graph, entries)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(path))


def _check(model: Exported, path: Path, side: int) -> None:
    """Compare the file with PyTorch on batches of one and three. Raises ValueError when they differ."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            wanted = model(images).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        boxes = float(np.abs(found[:, :4] - wanted[:, :4]).max())
        scores = float(np.abs(found[:, 4:] - wanted[:, 4:]).max())
        if found.shape != wanted.shape or boxes > _BOX_TOLERANCE or scores > _SCORE_TOLERANCE:
            raise ValueError(f"{path}: differs from PyTorch by {boxes:.3g} px and {scores:.3g} in scores")
