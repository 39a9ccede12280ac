"""An evaluation sees the boxes that the service answers with."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from streamer.datasets.labelled_set import LabelledPicture
from streamer.evaluation.model_run import detect, open_model
from streamer.imaging.image_header import Limits
from tests.helpers.service import PATIENT, ROOT, Service

STILLS = sorted((ROOT / "data" / "stills").glob("*.jpg"))


def test_boxes_are_those_of_the_service() -> None:
    names = ("barcode", "qr_code", "data_matrix", "aztec", "pdf417")
    with Service(PATIENT | {"BATCH_MAX": "1"}, bundled=True) as service:
        for version in ("v1", "v2"):
            model = open_model(version, names)
            for path in STILLS:
                answered = _posted(service, version, path)
                found = detect(model, _unlabelled(path)).boxes
                found = found[found[:, 4] >= model.threshold]
                assert [names[int(kind)] for kind in found[:, 5]] == [entry["label"] for entry in answered]
                for row, entry in zip(found, answered, strict=True):
                    assert row[:4].tolist() == pytest.approx(entry["box"], abs=0.02)
                    assert float(row[4]) == pytest.approx(entry["score"], abs=1e-3)
            model.close()


def _posted(service: Service, version: str, path: Path) -> list[dict[str, object]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}/{version}/predict",
        path.read_bytes(),
        {"Content-Type": "image/jpeg"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - our own service
        found: list[dict[str, object]] = json.load(answer)["detections"]
    return found


def _unlabelled(path: Path) -> LabelledPicture:
    width, height = Limits().read_header(path.read_bytes()).upright_size
    none = np.zeros((0, 4), np.float32)
    return LabelledPicture(path.stem, path, width, height, none, np.zeros(0, np.int64), "test")
