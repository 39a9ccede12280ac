"""Exports the trained network as an ONNX file with a manifest, after comparing its outputs with PyTorch."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from models.training.network import Detector, Exported
from models.training.recipe import Recipe
from models.training.symbols import CLASSES

_OPSET = 17
#: Largest differences from PyTorch that count as rounding errors: boxes in pixels, scores in 0..1.
_BOX_TOLERANCE, _SCORE_TOLERANCE = 0.05, 1e-3
#: The lowest score of a box that counts. It was chosen on the validation photographs, see the model card.
THRESHOLD = 0.35


def export(network: Detector, recipe: Recipe, folder: Path) -> Path:
    """Write ``NAME.onnx`` and ``NAME.json``; return the former.

    Raises ValueError, and writes neither file, when the results of onnxruntime and PyTorch differ.
    """
    side = recipe.side
    model = Exported(network, side).eval()
    path = folder / f"{recipe.name}.onnx"
    part = path.with_suffix(".part")
    batch = {0: "batch"}
    with warnings.catch_warnings():
        # The old exporter traces the network, which suffices without control flow. The new one needs
        # onnxscript.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (torch.zeros(1, 3, side, side),),
            str(part),
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes={"images": batch, "output0": batch},
            opset_version=_OPSET,
            dynamo=False,
        )
    graph = onnx.load(str(part))
    onnx.helper.set_model_props(
        graph,
        {
            "names": json.dumps(dict(enumerate(CLASSES))),
            "description": "printed codes, see models/README.md",
            "author": "real-time-vision-api",
            "license": "Apache-2.0",
            "imgsz": json.dumps([side, side]),
            "stride": "32",
            "task": "detect",
        },
    )
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, str(part))
    try:
        _check(model, part, side)
    except ValueError:
        part.unlink()
        raise
    part.replace(path)
    manifest = {
        "name": recipe.name,
        "family": "yolo",
        "input": {"width": side, "height": side},
        "labels": list(CLASSES),
        "conf_threshold": THRESHOLD,
        "licence": "Apache-2.0",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    path.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    return path


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
