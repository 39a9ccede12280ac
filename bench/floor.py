"""Measures the baseline: a bare loop of decode, letterbox, onnxruntime and suppression in a process per core.

It has no network, no queue and no isolation, and runs the model file unchanged. A service can only be faster
if it has less to compute (docs/decisions/0009). The code is independent of the service on purpose.
`bench.throughput` runs it in each of its rounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

#: Variables that a careful operator would set as well. Without the first two, every frame allocates fresh
#: pages.
_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "OMP_NUM_THREADS": "1",
}


def measure(model: Path, images: list[bytes], seconds: float, processes: int | None = None) -> float:
    """Return frames per second of ``processes`` bare loops side by side (default: one per core)."""
    count = processes or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        for index, image in enumerate(images):
            (Path(folder) / f"{index:03d}.jpg").write_bytes(image)
        begin = time.monotonic() + 2.0
        children = [
            subprocess.Popen(
                [sys.executable, "-m", "bench.floor", str(model), folder, str(begin), str(seconds)],
                env=os.environ | _ENVIRONMENT,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        return sum(float(json.loads(child.communicate()[0])["fps"]) for child in children)


class BareLoop:
    """Does the work of one process: single-threaded, with reused buffers."""

    def __init__(self, model: Path) -> None:
        import onnxruntime  # noqa: PLC0415 - the orchestrating process must not load it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0]
        height, width = self._input.shape[2:]
        self._size = (
            width if isinstance(width, int) else 640,
            height if isinstance(height, int) else 640,
        )
        self._canvas = np.full((self._size[1], self._size[0], 3), 114, np.uint8)
        self._planes = np.empty((1, 3, self._size[1], self._size[0]), np.float32)
        self._yolox = "yolox" in model.name

    def one(self, jpeg: bytes) -> int:
        """Process one image; return the number of boxes after suppression."""
        image: Any = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        ratio = min(self._size[0] / image.shape[1], self._size[1] / image.shape[0])
        width, height = int(image.shape[1] * ratio), int(image.shape[0] * ratio)
        left, top = ((self._size[0] - width) // 2, (self._size[1] - height) // 2)
        if self._yolox:
            left = top = 0
        inside = self._canvas[top : top + height, left : left + width]
        cv2.resize(image, (width, height), dst=inside, interpolation=cv2.INTER_LINEAR)
        for plane in range(3):
            source = self._canvas[:, :, plane if self._yolox else 2 - plane]
            if self._yolox:
                np.copyto(self._planes[0, plane], source)
            else:
                np.multiply(source, np.float32(1 / 255), out=self._planes[0, plane])
        (output,) = self._session.run(None, {self._input.name: self._planes})
        return self._suppress(output[0])

    def _suppress(self, rows: np.ndarray) -> int:
        if self._yolox:
            rows = rows[rows[:, 4] >= 0.25]
            scores, corners = rows[:, 4:5] * rows[:, 5:], rows[:, :4]
        else:
            rows = rows.T
            scores, corners = rows[:, 4:], rows[:, :4]
        best = scores.max(axis=1) if len(scores) else np.empty(0, np.float32)
        kept = best >= 0.25
        if not kept.any():
            return 0
        # OpenCV's type stubs only accept sequences, but arrays work.
        boxes: Any = corners[kept].astype(np.float64)
        classes: Any = scores[kept].argmax(axis=1).astype(np.int32)
        certain: Any = best[kept]
        return len(cv2.dnn.NMSBoxesBatched(boxes, certain, classes, 0.25, 0.45))


def _child(model: str, folder: str, begin: str, seconds: str) -> None:
    loop = BareLoop(Path(model))
    images = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    for image in images[:10]:
        loop.one(image)
    time.sleep(max(0.0, float(begin) - time.monotonic()))
    done, started = 0, time.monotonic()
    while (now := time.monotonic()) < started + float(seconds):
        loop.one(images[done % len(images)])
        done += 1
    sys.stdout.write(json.dumps({"fps": done / (now - started)}))


if __name__ == "__main__":
    _child(*sys.argv[1:])
