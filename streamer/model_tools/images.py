"""Pictures of a folder as the model sees them: limits, decoding and letterbox are those of the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference.models.model import ModelInfo
from inference.preprocess.letterbox import Letterbox
from streamer.client.folder import list_images
from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError
from streamer.imaging.limits import Limits
from streamer.model_zoo.errors import BadRequest

Frame = npt.NDArray[np.uint8]
#: Larger than the service's own limits: these are the user's files, no stranger's.
_LIMITS = Limits(image_bytes=64 << 20, image_px=100_000_000, image_side_px=16_384)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Picture files, in natural order."""

    paths: tuple[Path, ...]
    #: Files that the service would not take, with the reason.
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def sample(self, count: int) -> Pictures:
        """Return at most ``count`` of them, evenly spread."""
        if count >= len(self.paths):
            return self
        step = len(self.paths) / count
        return Pictures(tuple(self.paths[int(index * step)] for index in range(count)))

    def frames(self, model: ModelInfo) -> Iterator[tuple[Letterbox, Frame]]:
        """Yield each picture in the model's input: its place, and uint8 BGR (input height, width, 3)."""
        for path in self.paths:
            data = path.read_bytes()
            image = decode(data, _LIMITS.read_header(data)).pixels
            letterbox = Letterbox.fit(image.shape[1], image.shape[0], model)
            frame = np.empty((model.input_height, model.input_width, 3), np.uint8)
            letterbox.write(image, frame)
            yield letterbox, frame


def find_pictures(folder: Path, most: int) -> Pictures:
    """Return at most ``most`` pictures of a folder, evenly spread; what cannot be decoded is left out.

    Raises SourceFailed when the folder has none, BadRequest when it has none that the service takes.
    """
    found = Pictures(tuple(list_images(folder))).sample(most)
    good, bad = [], []
    for path in found.paths:
        try:
            data = path.read_bytes()
            decode(data, _LIMITS.read_header(data))
        except ImageError as error:
            bad.append(f"{path.name}: {error.detail}")
        except OSError as error:
            bad.append(f"{path.name}: {error.strerror or error}")
        else:
            good.append(path)
    if not good:
        raise BadRequest(f"--images {folder}: no picture that the service takes; {bad[0]}")
    return Pictures(tuple(good), tuple(bad))
