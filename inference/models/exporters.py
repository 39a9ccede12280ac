"""Lists the frameworks whose exports the service reads, and guesses from which of them a file comes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inference.models.onnx_header import NotOnnx, OnnxHeader, read_header


@dataclass(frozen=True, slots=True)
class Exporter:
    """Describes a command that exports a detector in a supported form; docs/models.md has the same table.

    If the metadata of a file has this ``author``, its description decides whether the file seems to come from
    the command: it must contain ``described`` if that is set, and otherwise must not contain "detr". Any
    other file seems to come from the command if its name contains one of ``names`` or it has all of
    ``outputs``.
    """

    framework: str
    command: str
    names: tuple[str, ...] = ()
    author: str = ""
    described: str = ""
    outputs: frozenset[str] = frozenset()

    def made(self, file_name: str, header: OnnxHeader, outputs: frozenset[str]) -> bool:
        """Return whether a file seems to come from this exporter."""
        description = header.metadata.get("description", "").lower()
        if self.author and header.metadata.get("author") == self.author:
            return self.described in description if self.described else "detr" not in description
        named = any(name in file_name.lower() for name in self.names)
        return named or bool(self.outputs and self.outputs <= outputs)


EXPORTERS = (
    Exporter(
        "Ultralytics YOLO",
        "yolo export model=best.pt format=onnx dynamic=True",
        ("yolov8", "yolov9", "yolo11", "yolo12", "yolo26"),
        "Ultralytics",
    ),
    Exporter(
        "Ultralytics YOLO, suppression in the graph",
        "yolo export model=best.pt format=onnx dynamic=True nms=True",
        author="Ultralytics",
    ),
    Exporter(
        "Ultralytics RT-DETR",
        "yolo export model=rtdetr-l.pt format=onnx",
        author="Ultralytics",
        described="detr",
    ),
    Exporter(
        "YOLOv5 repository",
        "python export.py --weights best.pt --include onnx --dynamic",
        ("yolov5", "yolov3"),
    ),
    Exporter(
        "YOLOv7 repository",
        "python export.py --weights best.pt --grid --end2end --max-wh 640 --dynamic-batch",
        ("yolov7",),
    ),
    Exporter(
        "YOLOX repository",
        "python tools/export_onnx.py -n yolox-nano -c best.pth --output-name best.onnx --dynamic",
        ("yolox",),
    ),
    Exporter(
        "YOLO-NAS (SuperGradients)",
        'model.export("best.onnx")',
        ("yolo_nas", "yolo-nas", "yolonas"),
        outputs=frozenset(("graph2_flat_predictions",)),
    ),
    Exporter(
        "YOLO-NAS (SuperGradients), one output for each number",
        'model.export("best.onnx", output_predictions_format="batch")',
        outputs=frozenset(("graph2_pred_boxes", "graph2_pred_scores", "graph2_pred_classes")),
    ),
    Exporter(
        "RT-DETR, D-FINE repositories",
        "python tools/export_onnx.py -c config.yml -r best.pth",
        ("rtdetr", "rt-detr", "rt_detr", "dfine", "d-fine", "d_fine"),
        outputs=frozenset(("labels", "boxes", "scores")),
    ),
    Exporter(
        "RF-DETR", "model.export()", ("rfdetr", "rf-detr", "rf_detr"), outputs=frozenset(("dets", "labels"))
    ),
    Exporter(
        "Hugging Face (DETR, RT-DETR, D-FINE)",
        "optimum-cli export onnx --task object-detection --model MODEL FOLDER",
        outputs=frozenset(("logits", "pred_boxes")),
    ),
)

#: Maps a part of the producer in the header to a framework whose exports the service does not read.
_NOT_SERVED = {"paddle": "PaddlePaddle", "tf2onnx": "TensorFlow", "keras": "Keras"}
#: The same for parts of the names of outputs.
_NOT_SERVED_OUTPUTS = {"multiclass_nms": "PaddlePaddle", "StatefulPartitionedCall": "TensorFlow"}


def likely_exporters(file_name: str, header: OnnxHeader, outputs: Iterable[str] = ()) -> tuple[Exporter, ...]:
    """Return the exporters that may have written this file; all of them if nothing indicates one.

    ``outputs`` are the names of its outputs, in case the header does not have them.
    """
    names = frozenset(outputs) | frozenset(header.output_names)
    return tuple(e for e in EXPORTERS if e.made(file_name, header, names)) or EXPORTERS


def advice(path: str, outputs: Iterable[str] = ()) -> str:
    """Return how to export a file so that it can be served, as a sentence without its full stop.

    The sentence names the command of the framework from which the file seems to come. Reads the header of the
    file. A header that cannot be read raises no error.
    """
    header = _header_of(path)
    found = likely_exporters(Path(path).name, header, outputs)
    if found != EXPORTERS:
        return f"It seems to come from {found[0].framework}: export it as `{found[0].command}` does"
    producer, names = header.producer.lower(), " ".join((*header.output_names, *outputs))
    unread = [framework for part, framework in _NOT_SERVED.items() if part in producer]
    unread += [framework for part, framework in _NOT_SERVED_OUTPUTS.items() if part in names]
    if unread:
        return not_read(unread[0])
    return "Export it with the command of its framework under `Export` in docs/models.md"


def not_read(framework: str) -> str:
    """Return that the exports of a framework cannot be served, as a sentence without its full stop."""
    return (
        f"It seems to come from {framework}, whose exports the service does not read: "
        "docs/models.md lists the frameworks that it reads"
    )


def is_tensorflow(path: str) -> bool:
    """Return whether the header of a file names a converter for TensorFlow."""
    return "tf2onnx" in _header_of(path).producer.lower()


def _header_of(path: str) -> OnnxHeader:
    try:
        return read_header(Path(path))
    except (OSError, NotOnnx):
        return OnnxHeader()
