"""R20: a stream may change its sizes, the track behind a video, its codec and its sound at any time."""

from __future__ import annotations

import asyncio
import fractions
from collections.abc import Callable
from copy import copy
from typing import Any

import av
import numpy as np
import pytest
from aiortc import AudioStreamTrack
from aiortc.codecs import get_encoder

from tests.faults.conftest import Stubbed
from tests.faults.nonce import Nonce, read_video_box
from tests.faults.results import Result
from tests.helpers.load import http_session, pack
from tests.helpers.webrtc_client import Track, WebrtcClient
from tests.unit.images import encode, scene

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

#: Widths and heights of successive frames in one stream.
_SIZES = [(64, 64), (1, 1), (640, 480), (3, 2), (65, 63), (1, 500), (500, 1), (1280, 720), (64, 64)]


def test_frames_of_a_stream_may_change_their_size(stubbed: Start, figures: Result) -> None:
    stub = stubbed(model_s=0.001)

    async def change() -> list[tuple[int, int]]:
        seen = []
        async with (
            http_session() as session,
            session.ws_connect(f"{stub.service.http_url}/v1/stream", protocols=["detect.v1.json"]) as socket,
        ):
            await socket.send_json({"type": "hello", "streams": [{"id": 0, "codec": "png", "mode": "all"}]})
            for seq, (width, height) in enumerate(_SIZES, 1):
                await socket.send_bytes(pack(seq, encode(scene(width, height), ".png"), png=True))
                while (event := await socket.receive_json(timeout=60))["type"] != "result":
                    assert event["type"] not in ("error", "drop"), event
                seen.append((event["width"], event["height"]))
        return seen

    seen = asyncio.run(change())
    figures.note(sizes=len(_SIZES), frames_lost=0)
    assert seen == _SIZES


_VIDEO_SIZES = [(160, 120), (320, 240), (161, 121), (64, 48)]


async def test_a_video_may_change_its_size(stubbed: Start, figures: Result) -> None:
    stub = await asyncio.to_thread(stubbed, model_s=0.001)

    size = _VIDEO_SIZES[0]
    track = Track(lambda _: scene(*size), fps=12)
    async with WebrtcClient(f"{stub.service.http_url}/v1/webrtc", track=track) as client:

        def seen() -> list[tuple[int, int]]:
            return [(m["width"], m["height"]) for m in client.of_type("result")]

        async with asyncio.timeout(100):
            for size in [*_VIDEO_SIZES, _VIDEO_SIZES[0]]:
                before = len(seen())
                while size not in seen()[before:]:
                    await asyncio.sleep(0.1)
            await client.wait_for("result", len(seen()) + 5)
        sizes = seen()
    figures.note(sizes=len(set(sizes)), results=len(sizes), sent=track.number)
    assert set(sizes) == set(_VIDEO_SIZES)


class Tone(AudioStreamTrack):
    """Sends 20 ms of sound fifty times a second."""

    sent = 0

    async def recv(self) -> av.AudioFrame:
        """Return the next frame when it is due."""
        await asyncio.sleep(0.02)
        frame = av.AudioFrame.from_ndarray(np.full((1, 960), 900, np.int16), layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, self.sent * 960, fractions.Fraction(1, 48_000)
        self.sent += 1
        return frame


class ChangingVideo(WebrtcClient):
    """A session that changes what it sends while nothing is in transit, and counts the frames lost."""

    def __init__(self, url: str) -> None:
        super().__init__(url, track=Track(_image(0, 64), fps=12), codec="")
        self._tracks = [self.track]
        self._side_px = 64
        #: Copies of the negotiated codecs by name, made before `switch` changes the session's own objects.
        self._negotiated: dict[str, Any] = {}
        #: Number of frames that were sent before the first result and lost, because the server was not ready.
        self._too_early = 0

    async def offer(self) -> str:
        """Return an offer of a video in any codec, and of an audio track that is silent at first."""
        self.audio = self.peer.addTransceiver("audio", "sendonly").sender
        return await super().offer()

    @property
    def _video(self) -> Any:
        (video,) = (each for each in self.peer.getTransceivers() if each.kind == "video")
        return video

    @property
    def lost(self) -> int:
        """Number of frames that were sent since the first result and have no outcome."""
        numbers = [each["seq"] for each in self.of_type("result")] + [
            each["to"] for each in self.of_type("drop")
        ]
        return sum(track.number for track in self._tracks) - self._too_early - max(numbers, default=0)

    async def expect_results(self, count: int = 5) -> None:
        """Wait for results of the current track, pause it, and wait for the frames in transit."""
        before, track = len(self.of_type("result")), self._tracks[-1]
        track.running.set()
        results = (await self.wait_for("result", before + count, timeout_s=40))[before:]
        track.running.clear()
        if len(self._tracks) == 1 and not self._too_early:
            await asyncio.sleep(1.0)
            self._too_early = self.lost
        await self._settle()
        for result in results:
            assert (result["width"], result["height"]) == (self._side_px, self._side_px)
            seen = [read_video_box(box, self._side_px).client for box in result["boxes"]]
            assert seen == [len(self._tracks) - 1]

    async def _settle(self) -> None:
        for _ in range(200):
            if self.lost > 0:
                await asyncio.sleep(0.05)

    async def replace(self, side_px: int) -> None:
        """Send another track, of another size, with the same sender."""
        old, sent = self._tracks[-1], self._tracks[-1].number
        self._tracks.append(Track(_image(len(self._tracks), side_px), fps=12))
        self._tracks[-1].running.clear()
        self._video.sender.replaceTrack(self._tracks[-1])
        # The sender still waits for a frame of the old track.
        old.running.set()
        while old.number == sent:
            await asyncio.sleep(0.02)
        await self._settle()
        self._side_px = side_px

    def switch(self, codec: str) -> None:
        """Continue in another negotiated codec, as a browser may at any time."""
        if not self._negotiated:
            self._negotiated = {each.name: copy(each) for each in reversed(self._video._codecs)}
        # aiortc has no API for this: its sender has one encoder and uses the payload type of the first codec.
        self._video.sender._RTCRtpSender__encoder = get_encoder(self._negotiated[codec])
        self._video._codecs[0].payloadType = self._negotiated[codec].payloadType


def _image(number: int, side_px: int) -> Callable[[int], np.ndarray[Any, Any]]:
    return lambda _: Nonce(number, 0).pixels(side_px)


async def test_a_video_goes_on_in_another_codec_from_another_track_and_beside_sound(
    stubbed: Start, figures: Result
) -> None:
    stub = await asyncio.to_thread(stubbed, model_s=0.001)
    async with ChangingVideo(f"{stub.service.http_url}/v1/webrtc") as client:
        await client.expect_results()
        client.switch("H264")
        await client.expect_results()
        client.switch("VP8")
        await client.expect_results()
        await client.replace(128)
        await client.expect_results()
        tone = Tone()
        client.audio.replaceTrack(tone)
        await client.expect_results(count=10)
        async with asyncio.timeout(40):
            while tone.sent <= 10:
                await asyncio.sleep(0.1)
        await client.replace(96)
        client.switch("H264")
        await client.expect_results()
        assert (await client.state())["state"] == "connected"
        figures.note(changes=6, frames_lost=client.lost)
        assert client.lost <= 1
        errors = client.of_type("error")
    assert errors == []
