"""The commands that export a detector so that the service can read it; docs/models.md has the same table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exporter:
    """One way to a good file, and what its files look like: parts of file names, the author in metadata."""

    framework: str
    command: str
    names: tuple[str, ...] = ()
    author: str = ""


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
        "YOLOv5 repository",
        "python export.py --weights best.pt --include onnx --dynamic",
        ("yolov5", "yolov7"),
    ),
    Exporter(
        "YOLOX repository",
        "python tools/export_onnx.py -n yolox-nano -c best.pth --output-name best.onnx --dynamic",
        ("yolox",),
    ),
    Exporter(
        "RT-DETR, D-FINE repositories",
        "python tools/export_onnx.py -c config.yml -r best.pth",
        ("rtdetr", "rt-detr", "rt_detr", "dfine", "d-fine", "d_fine"),
    ),
    Exporter("RF-DETR", "model.export()", ("rfdetr", "rf-detr", "rf_detr")),
)


def likely_exporters(file_name: str, metadata: Mapping[str, str]) -> tuple[Exporter, ...]:
    """Return the exporters that this file may have come from; all where nothing tells."""
    lower = file_name.lower()
    author = metadata.get("author", "")
    found = tuple(
        exporter
        for exporter in EXPORTERS
        if (exporter.author and exporter.author == author) or any(name in lower for name in exporter.names)
    )
    return found or EXPORTERS
