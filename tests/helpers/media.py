"""Provides images and models for the benchmarks: shared real ones, or generated ones if those are absent."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from tests.conftest import SHARED
from tests.helpers.model_factory import null_model

QUALITY = 80


def images(count: int = 32, size: tuple[int, int] = (640, 480)) -> list[bytes]:
    """Return JPEGs of ``size``: frames of the shared video, or noise over a gradient if it is absent."""
    video = SHARED / "data" / "video" / "one-by-one-person-detection.mp4"
    frames = _video_frames(video, count) if video.exists() else _drawn_frames(count)
    return [_encode(cv2.resize(frame, size)) for frame in frames]


def _video_frames(path: Path, count: int) -> list[np.ndarray]:
    frames = []
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 10 == 0:
                frames.append(frame.to_ndarray(format="bgr24"))
            if len(frames) == count:
                break
    return frames


def _drawn_frames(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 200, 640, dtype=np.uint8)[None, :, None]
    return [
        np.clip(ramp + random.integers(0, 40, (480, 640, 3), dtype=np.uint8), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


def _encode(frame: np.ndarray) -> bytes:
    encoded, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not encoded:
        raise ValueError("cannot encode a frame")
    return data.tobytes()


def model(name: str, folder: Path) -> Path:
    """Return a model file by name: ``null`` is created in ``folder``, others are shared models or paths."""
    if name == "null":
        return null_model(folder / "null.onnx", size=320)
    for path in (Path(name), SHARED / "models" / f"{name}.onnx"):
        if path.is_file():
            return path
    raise SystemExit(f"no such model: {name!r}; allowed are null, yolox_nano (if shared) or a path")
