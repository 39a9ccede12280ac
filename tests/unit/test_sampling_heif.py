"""A HEIC or AVIF becomes a sample as a JPEG, which training tools read, without any of its metadata."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from streamer.config.settings import load_settings
from streamer.imaging.image_header import ImageError, ImageErrorCode
from streamer.sampling.candidate_image import decode_here
from streamer.sampling.collector import Collector
from streamer.sampling.metrics import SamplingMetrics
from streamer.sampling.policy import Policy
from streamer.sampling.selection import Selection
from streamer.sampling.spool import Spool
from tests.helpers.candidates import candidate, choice
from tests.unit.heif_files import libavif_file, libheif_file
from tests.unit.images import scene

TOLD = "somewhere"


def collector(folder: Path) -> Collector:
    spool = Spool(folder / "spool", 1 << 20)
    spool.open()
    return Collector(
        Selection(Policy.of(load_settings()), random.Random(1)),
        spool,
        SimpleNamespace(wake=lambda: None),
        SamplingMetrics(),
        strip_metadata=True,
        threshold=0.5,
        service_version="1",
    )


def files() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x010E] = TOLD
    return {
        "heic": libheif_file(scene(), exif=exif.tobytes()),
        "avif": libavif_file(scene(), exif=exif.tobytes()),
    }


@pytest.mark.parametrize("name", ["heic", "avif"])
def test_the_sample_is_an_upright_jpeg_without_metadata(name: str, tmp_path: Path) -> None:
    data = files()[name]
    assert TOLD.encode() in data
    collecting = collector(tmp_path)
    collecting._accept(choice(candidate(0.5, data=data, rotation=1, width=96, height=160)))
    (stored,) = collecting._spool.oldest()
    sample = collecting._spool.read(stored)
    assert TOLD.encode() not in sample.image
    pixels = np.asarray(cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_COLOR))
    upright = cv2.rotate(scene(), cv2.ROTATE_90_CLOCKWISE)
    assert np.abs(pixels.astype(int) - upright).mean() < 3
    said: dict[str, Any] = sample.sidecar["image"]
    assert said["key"].endswith(".jpg")
    assert (said["format"], said["exif_orientation"], said["rotation"]) == ("jpg", 1, 0)
    assert said["source"] == "encoded_q95"


def test_a_sample_that_cannot_be_decoded_is_counted(tmp_path: Path) -> None:
    collecting = collector(tmp_path)

    def refuse(data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Any:
        raise ImageError(ImageErrorCode.DAMAGED, "x")

    collecting.decode = refuse
    collecting._accept(choice(candidate(0.5, data=files()["heic"])))
    assert not len(collecting._spool)
    assert collecting._metrics.drops.labels("damaged")._value.get() == 1
    collecting.decode = decode_here
    collecting._accept(choice(candidate(0.5, data=files()["heic"])))
    assert len(collecting._spool) == 1
