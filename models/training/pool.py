"""Renders the synthetic scenes once, and loads the stored scenes for training."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from models.training.scene import Scene, draw_scene

#: Number of scenes in one file; small, so that an interrupted rendering loses little work.
SHARD = 250
_QUALITY = 95


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds a stored image as JPEG bytes, and its codes; `scene.Scene` describes the arrays."""

    jpeg: bytes
    class_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]

    def image(self) -> npt.NDArray[np.uint8]:
        """Return the image (h, w, 3), BGR."""
        return np.asarray(cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def render(folder: Path, count: int, processes: int, kind: str | None = None) -> None:
    """Render those of the first ``count`` scenes that do not exist yet, and show a progress bar."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = [
        (folder, start, kind) for start in range(0, count, SHARD) if not _path(folder, start, kind).exists()
    ]
    if not shards:
        return
    # Spawn the processes instead of forking them, because OpenCV's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        bar = tqdm(total=len(shards) * SHARD, desc=kind or "scenes", unit="scene")
        for _ in workers.imap_unordered(_render_shard, shards):
            bar.update(SHARD)
        bar.close()


def load(folder: Path, count: int, kind: str | None = None) -> list[Sample]:
    """Return the first ``count`` rendered scenes, rounded up to whole files."""
    samples: list[Sample] = []
    for start in range(0, count, SHARD):
        with np.load(_path(folder, start, kind)) as shard:
            data, ends = shard["data"].tobytes(), shard["ends"]
            class_ids, boxes, codes = shard["class_ids"], shard["boxes"], shard["codes"]
        begin = code = 0
        for end, count_here in zip(ends.tolist(), codes.tolist(), strict=True):
            part = slice(code, code + count_here)
            samples.append(Sample(data[begin:end], class_ids[part], boxes[part]))
            begin, code = end, code + count_here
    return samples


def _path(folder: Path, start: int, kind: str | None) -> Path:
    return folder / f"{kind or 'scenes'}-{start:07d}.npz"


def stored(scene: Scene) -> Sample:
    """Return a scene as a file of scenes stores it."""
    _, data = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return Sample(data.tobytes(), scene.class_ids, scene.boxes)


def _render_shard(task: tuple[Path, int, str | None]) -> None:
    folder, start, kind = task
    cv2.setNumThreads(1)
    scenes = [stored(draw_scene(start + index, kind=kind)) for index in range(SHARD)]
    files = [scene.jpeg for scene in scenes]
    part = _path(folder, start, kind).with_suffix(".part.npz")
    np.savez(
        part,
        data=np.frombuffer(b"".join(files), np.uint8),
        ends=np.cumsum([len(file) for file in files]),
        codes=np.array([len(scene.class_ids) for scene in scenes]),
        class_ids=np.concatenate([scene.class_ids for scene in scenes]),
        boxes=np.concatenate([scene.boxes for scene in scenes]),
    )
    part.rename(_path(folder, start, kind))  # a file is either complete or absent
