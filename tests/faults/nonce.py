"""Frames that only one client sends, and a model whose box identifies the frame that it was given.

A frame of one colour encodes the client's number and a counter. The model places its only box by the means of
the three colour planes, so the box alone shows whether an answer belongs to another client or another frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from tests.helpers.model_factory import PLAIN, cells, save

#: Difference between two values of a colour plane. The box separates neighbouring values by a wide margin.
_STEP = 5
_LEVELS = 50
CLIENTS_MAX = _LEVELS * _LEVELS
#: The counter of a client's frames wraps around here.
COUNTER = _LEVELS
#: Like `_STEP`, for frames that pass through a video encoder, which changes colours a little.
_VIDEO_STEP = 25
VIDEO_LEVELS = 10
SIDE_PX = PLAIN.width
#: Pixels by which the box's centre moves and its size grows from black to white.
_SPAN_PX = 24.0
_FIRST_CENTRE_PX, _FIRST_SIZE_PX = 20.0, 6.0

#: A colour that no nonce has, because its value of the counter's plane is white.
CRASHING_COLOUR = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Nonce:
    """The client that sent a frame, and the frame's counter."""

    client: int
    counter: int

    @property
    def colour(self) -> tuple[int, int, int]:
        """The frame's colour as (blue, green, red)."""
        client_low, client_high = self.client % _LEVELS, self.client // _LEVELS
        return self.counter % COUNTER * _STEP, client_high * _STEP, client_low * _STEP

    def image(self, suffix: str = ".png") -> bytes:
        """Return the frame, encoded."""
        return plain_image(self.colour, suffix)

    def pixels(self, side_px: int) -> npt.NDArray[np.uint8]:
        """Return a square frame for a video encoder; `read_video_box` reads its box.

        There are `VIDEO_LEVELS` counters and the square of that many clients.
        """
        high, low = divmod(self.client, VIDEO_LEVELS)
        colour = np.array([self.counter % VIDEO_LEVELS, high, low]) * _VIDEO_STEP
        return np.full((side_px, side_px, 3), colour, np.uint8)


def plain_image(colour: tuple[int, int, int], suffix: str = ".png", side_px: int = SIDE_PX) -> bytes:
    """Return an image of one colour (blue, green, red)."""
    pixels = np.full((side_px, side_px, 3), colour, np.uint8)
    encoded, data = cv2.imencode(suffix, pixels)
    assert encoded
    return bytes(data.tobytes())


def read_box(box: Sequence[float]) -> Nonce:
    """Return the nonce of the frame that this box (x1, y1, x2, y2 in pixels) was made from."""
    low, high, counter = _steps(box, _STEP)
    return Nonce(high * _LEVELS + low, counter)


def read_video_box(box: Sequence[float], side_px: int) -> Nonce:
    """Return the nonce whose `Nonce.pixels` this box was made from."""
    low, high, counter = _steps([each * SIDE_PX / side_px for each in box[:4]], _VIDEO_STEP)
    return Nonce(high * VIDEO_LEVELS + low, counter)


def _steps(box: Sequence[float], step: int) -> tuple[int, int, int]:
    """Return the values of red, green and blue in steps from black."""
    x1, y1, x2, y2 = box[:4]
    red = ((x1 + x2) / 2 - _FIRST_CENTRE_PX) / _SPAN_PX
    green = ((y1 + y2) / 2 - _FIRST_CENTRE_PX) / _SPAN_PX
    blue = ((x2 - x1) - _FIRST_SIZE_PX) / _SPAN_PX
    return round(red * 255 / step), round(green * 255 / step), round(blue * 255 / step)


def nonce_model(path: Path) -> Path:
    """Write a yolo model of one class with one certain box, placed by the means of the colour planes."""
    count = len(cells(PLAIN))
    # Matrix from the means of red, green and blue to the box: centre x, centre y, width, height.
    mixing = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], np.float32) * _SPAN_PX
    offset = np.array([_FIRST_CENTRE_PX] * 2 + [_FIRST_SIZE_PX] * 2, np.float32)
    scores = np.zeros((1, 1, count), np.float32)
    scores[0, 0, 3] = 0.9
    nodes = [
        helper.make_node("ReduceMean", [PLAIN.name], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["means", "mixing"], ["mixed"]),
        helper.make_node("Add", ["mixed", "offset"], ["box"]),
        helper.make_node("Unsqueeze", ["box", "two"], ["column"]),
        helper.make_node("Mul", ["column", "ones"], ["boxes"]),
        helper.make_node("Slice", ["boxes", "zero", "one", "one"], ["row"]),
        helper.make_node("Mul", ["row", "nought"], ["blank"]),
        helper.make_node("Add", ["blank", "scores"], ["all_scores"]),
        helper.make_node("Concat", ["boxes", "all_scores"], ["output0"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(mixing.T.copy(), "mixing"),
        numpy_helper.from_array(offset, "offset"),
        numpy_helper.from_array(np.array([2], np.int64), "two"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.ones((1, 1, count), np.float32), "ones"),
        numpy_helper.from_array(np.float32(0).reshape(()), "nought"),
        numpy_helper.from_array(scores, "scores"),
    ]
    return save(path, nodes, {"output0": (np.float32, [5, count])}, constants=constants)
