"""A decoded frame that a process shares is converted to upright pixels."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.imaging.turning import Turning
from streamer.webrtc.video_host import SharedFrame
from streamer.webrtc.video_messages import Layout


@pytest.mark.parametrize("turns", range(4))
def test_the_grey_pixels_of_a_frame_are_upright(turns: int) -> None:
    planes = np.arange(8 * 6 * 3 // 2, dtype=np.uint8)
    frame = SharedFrame(8, 6, Layout.I420, planes, lambda: None)
    frame.turn(Turning(mirrored=False, turns=turns))
    expected = np.rot90(planes[:48].reshape(6, 8), -turns)
    assert np.array_equal(frame.grey(), expected)
    assert frame.grey().flags.c_contiguous
    assert frame.grey().shape == (frame.height, frame.width)
    shades = np.repeat(np.arange(48, dtype=np.uint8), 3)
    coloured = SharedFrame(8, 6, Layout.BGR, shades, lambda: None)
    assert np.array_equal(coloured.grey(), np.arange(48, dtype=np.uint8).reshape(6, 8))
