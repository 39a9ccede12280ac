"""Tests the annotated video of a WebRTC session: which frames it has, and what is drawn on them."""

from __future__ import annotations

import asyncio

import av
import numpy as np
import numpy.typing as npt
import pytest

from streamer.imaging.draw import draw_boxes, label_rows
from streamer.webrtc.annotated_track import AnnotatedTrack

LABELS = ("parcel", "qr_code")
ROWS = [[20.0, 60.0, 300.0, 200.0, 0.9, 1.0], [20.0, 260.0, 300.0, 400.0, 0.9, 0.0]]


class Grey:
    """A decoded frame of one shade; implements `imaging.frame.DecodedFrame`."""

    width, height = 640, 480
    nbytes = 640 * 480 * 3

    def pixels(self) -> npt.NDArray[np.uint8]:
        return np.full((self.height, self.width, 3), 60, np.uint8)

    def grey(self) -> npt.NDArray[np.uint8]:
        return np.full((self.height, self.width), 60, np.uint8)


async def received(track: AnnotatedTrack) -> npt.NDArray[np.uint8]:
    async with asyncio.timeout(60):
        frame = await track.recv()
    assert isinstance(frame, av.VideoFrame)
    return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


@pytest.mark.parametrize("texts", [(), ["https://example.org/a", None]])
async def test_boxes_are_drawn_with_the_texts_of_codes(texts: list[str | None]) -> None:
    track = AnnotatedTrack(LABELS)
    track.frame_received(1, Grey(), 100_000)
    track.result_received(1, ROWS, texts)
    expected = Grey().pixels()
    draw_boxes(expected, label_rows(ROWS, LABELS, texts))
    plain = av.VideoFrame.from_ndarray(expected, format="bgr24").reformat(format="yuv420p")
    assert np.array_equal(await received(track), plain.to_ndarray(format="bgr24"))
    track.stop()


async def test_the_newest_frame_with_a_result_is_sent_once() -> None:
    track = AnnotatedTrack(LABELS)
    for seq in (1, 2, 3):
        track.frame_received(seq, Grey(), seq * 100_000)
    for seq in (1, 2, 9):  # the track has no frame 9
        track.result_received(seq, [], ())
    assert (await received(track)).max() < 80
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await track.recv()
    track.stop()
