"""Holds the pictures of a labelled set in memory, at the size of the network's input and within a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from inference.models.model import Placement
from inference.preprocess.letterbox import Letterbox
from streamer.datasets.label_file import BadSet
from streamer.datasets.labelled_set import LabelledPicture
from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, read_header
from streamer.imaging.pixel_limits import NoPixelLimits

Image = npt.NDArray[np.uint8]
#: Longest side of a picture in memory, relative to the side of the network's input. Views enlarge pictures by
#: at most 1.6, mostly less.
_MARGIN = 1.25
PAD = 114


@dataclass(frozen=True, slots=True)
class NetworkInput:
    """The input of the trainer's network, as `Letterbox` wants it."""

    side: int
    placement: Placement = Placement.CENTRED
    pad_value: int = PAD

    @property
    def input_width(self) -> int:
        """Width in pixels."""
        return self.side

    @property
    def input_height(self) -> int:
        """Height in pixels."""
        return self.side


@dataclass(slots=True)
class TrainingPicture:
    """A picture at the size that training needs, with its objects in its own pixels; see `views.Labelled`."""

    source: LabelledPicture
    longest_px: int
    class_ids: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    #: None if the limit was reached before this picture; it is then read each time.
    _kept: Image | None = field(default=None, repr=False)

    def image(self) -> Image:
        """Return the picture (h, w, 3), BGR. Raises BadSet when it cannot be read."""
        return self._kept if self._kept is not None else shrunk(read(self.source), self.longest_px)

    def keep(self) -> int:
        """Read the picture, and keep it; return its bytes."""
        self._kept = self.image()
        return self._kept.nbytes


def read(picture: LabelledPicture) -> Image:
    """Return a picture (h, w, 3), BGR, decoded as the service would. Raises BadSet."""
    try:
        data = picture.path.read_bytes()
        pixels = decode(data, read_header(data, NoPixelLimits())).pixels
    except OSError as error:
        raise BadSet(f"{picture.path}: {error.strerror or error}") from error
    except ImageError as error:
        raise BadSet(f"{picture.path}: {error}") from error
    if pixels.shape[:2] != (picture.height, picture.width):
        raise BadSet(
            f"{picture.path}: the image has {pixels.shape[1]}x{pixels.shape[0]} pixels; "
            f"its labels say {picture.width}x{picture.height}"
        )
    return np.asarray(pixels, np.uint8)


def shrunk(image: Image, longest_px: int) -> Image:
    """Return the image with its longest side at most that long, resized linearly as in the service."""
    size = _size_within(image.shape[1], image.shape[0], longest_px)
    if size == (image.shape[1], image.shape[0]):
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def load(
    pictures: Sequence[LabelledPicture],
    side: int,
    limit_bytes: int,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[TrainingPicture]:
    """Return the pictures for training, as many of them in memory as the limit allows. Raises BadSet."""
    longest = round(side * _MARGIN)
    loaded, used = [], 0
    for number, picture in enumerate(pictures):
        width, height = _size_within(picture.width, picture.height, longest)
        ratio = np.array([width / picture.width, height / picture.height] * 2, np.float32)
        made = TrainingPicture(picture, longest, picture.classes, picture.boxes * ratio)
        if used + width * height * 3 <= limit_bytes:
            used += made.keep()
        loaded.append(made)
        on_progress(number + 1, len(pictures))
    return loaded


def letterboxed(picture: LabelledPicture, side: int) -> tuple[Image, Letterbox]:
    """Return a picture as the network's input (side, side, 3), BGR, and its place in it. Raises BadSet."""
    place = Letterbox.fit(picture.width, picture.height, NetworkInput(side))
    slot = np.empty((side, side, 3), np.uint8)
    place.write(read(picture), slot)
    return slot, place


def _size_within(width: int, height: int, longest_px: int) -> tuple[int, int]:
    scale = min(1.0, longest_px / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
