"""Turns stored pixels upright, by the EXIF orientation and the rotation that the sender of a frame states."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.pixel_limits import ORIENTATIONS
from streamer.imaging.sampled_pixels import Rows, sampled_memory, sampled_rows

Image = npt.NDArray[np.uint8]

_TURNS = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}
#: Axes of `cv2.flip`.
_UP_DOWN, _LEFT_RIGHT, _BOTH = 0, 1, -1


@dataclass(frozen=True, slots=True)
class Turning:
    """Describes how stored pixels become upright: they are mirrored left to right first, then turned."""

    mirrored: bool
    #: Clockwise quarter turns, 0 to 3.
    turns: int

    @classmethod
    def of(cls, orientation: int, rotation: int) -> Turning:
        """Return the turning for an EXIF ``orientation`` and then ``rotation`` clockwise quarter turns."""
        mirrored, turns = ORIENTATIONS[orientation]
        return cls(mirrored, (turns + rotation) % 4)

    @property
    def changes(self) -> bool:
        """Whether the stored pixels are not upright yet."""
        return self.mirrored or self.turns != 0

    def upright_size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of the upright image, from those of the stored one."""
        return (height, width) if self.turns % 2 else (width, height)

    def place(self, image: Image, left: int, top: int, stored: tuple[int, int], upright: Image) -> None:
        """Turn a part of a stored image, and write it to its place in ``upright``.

        The part begins at ``left`` and ``top``; ``stored`` is width and height of the stored image.
        """
        height, width = image.shape[:2]
        if self.mirrored:
            left = stored[0] - left - width
        across, down = left, top
        if self.turns == 1:
            across, down = stored[1] - top - height, left
        elif self.turns == 2:
            across, down = stored[0] - left - width, stored[1] - top - height
        elif self.turns == 3:
            across, down = top, stored[0] - left - width
        width, height = self.upright_size(width, height)
        upright[down : down + height, across : across + width] = self.upright(image)

    def upright(self, image: Image) -> Image:
        """Return the image upright, in a single pass over the pixels where possible."""
        mirrored, turns = self.mirrored, self.turns
        if not mirrored and not turns:
            return image
        turned: Image
        if not mirrored:
            turned = cv2.rotate(image, _TURNS[turns])
        elif turns == 3:
            turned = cv2.transpose(image)
        elif turns == 1:
            turned = cv2.flip(cv2.transpose(image), _BOTH)
        else:
            turned = cv2.flip(image, _UP_DOWN if turns == 2 else _LEFT_RIGHT)
        return turned

    def stored_rows(self, height: int, width: int, resized: tuple[int, int]) -> Rows:
        """Return the stored rows that are read when the upright image is resized linearly, ascending.

        ``height`` and ``width`` are those of the stored image; ``resized`` is the new width and height.
        """
        rows = sampled_rows(height, resized[0] if self.turns % 2 else resized[1])
        return height - 1 - rows[::-1] if self.turns in (1, 2) else rows

    def upright_sampled(self, image: Image, resized: tuple[int, int]) -> Image:
        """Return an image in `sampled_memory` upright, again with only the rows that resizing reads.

        May change ``image``. Only some rows of it are kept, and flipping it up and down in place would move
        them to rows that are not kept, so this method never does that.
        """
        mirrored, turns = self.mirrored, self.turns
        if (turns == 0 and mirrored) or (turns == 3 and not mirrored):
            cv2.flip(image, _LEFT_RIGHT, dst=image)
        if turns == 0:
            return image
        height, width = image.shape[1::-1] if turns % 2 else image.shape[:2]
        upright = sampled_memory(height, width, sampled_rows(height, resized[1]))
        if upright is None:
            upright = np.empty((height, width, 3), np.uint8)
        if turns == 2:
            return np.asarray(cv2.flip(image, _UP_DOWN if mirrored else _BOTH, dst=upright), np.uint8)
        if mirrored and turns == 1:
            cv2.flip(image, _LEFT_RIGHT, dst=image)
        cv2.transpose(image, dst=upright)
        if turns == 1:
            cv2.flip(upright, _LEFT_RIGHT, dst=upright)
        return upright


#: The turning of pixels that are stored upright.
NO_TURNING = Turning(mirrored=False, turns=0)
