"""Provides pictures without a code: drawn ones of each kind, photographs of a folder, frames of a video."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from models.training.exposure import expose
from models.training.negatives import KINDS, draw_negative
from models.training.textures import Image
from models.training.video import filmed

#: Drawn pictures of each kind. Rooms have a target of their own, so there are more of them.
PICTURES = {kind: 60 if kind == "room" else 20 for kind in KINDS}
#: Frames of a video that are looked at.
FRAMES = 200
_HEIGHT, _WIDTH = 480, 640
_FILES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def drawn(kind: str, count: int | None = None) -> Iterator[Image]:
    """Yield pictures of a kind of `negatives.KINDS`, every other one as a frame of a video.

    Training uses none of them.
    """
    for number in range(PICTURES[kind] if count is None else count):
        rng = np.random.default_rng([0xE117, zlib.crc32(kind.encode()), number])
        image = expose(rng, draw_negative(rng, _HEIGHT, _WIDTH, kind), "empty")
        if number % 2:
            image, _ = filmed(rng, image, np.zeros(image.shape[:2], np.uint8))
        yield image


@dataclass(frozen=True, slots=True)
class File:
    """A picture of a folder."""

    path: Path

    def image(self) -> Image:
        """Return the picture (h, w, 3), BGR. Raises ValueError when it cannot be read."""
        image = cv2.imread(str(self.path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{self.path}: not an image that OpenCV reads")
        return np.asarray(image, np.uint8)


def files(folder: Path) -> list[File]:
    """Return the pictures of a folder in the order of their names. Raises OSError."""
    return [File(path) for path in sorted(folder.iterdir()) if path.suffix.lower() in _FILES]


def frames(path: Path, most: int = FRAMES) -> Iterator[Image]:
    """Yield at most ``most`` frames of a video, evenly spread. Raises OSError or av.FFmpegError."""
    with av.open(str(path)) as container:
        total = sum(packet.size > 0 for packet in container.demux(video=0))
    step = max(1, -(-total // most))
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % step == 0:
                yield frame.to_ndarray(format="bgr24")
