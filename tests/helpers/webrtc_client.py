"""A WebRTC client for tests: unchanged aiortc with a track whose images and frame rate the test controls."""

from __future__ import annotations

import asyncio
import fractions
import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import aiohttp
import av
import numpy as np
from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
    VideoStreamTrack,
)

CLOCK = fractions.Fraction(1, 90_000)


def grey(number: int) -> np.ndarray[Any, Any]:
    """Return a uniform image that is cheap to encode: 160x120."""
    return np.full((120, 160, 3), 40 + number % 100, np.uint8)


class Track(VideoStreamTrack):
    """Sends ``image(n)`` (BGR) as frame n at ``fps``; pauses while `running` is not set."""

    def __init__(self, image: Callable[[int], np.ndarray[Any, Any]] = grey, fps: float = 10) -> None:
        super().__init__()
        self.fps = fps
        self.number = 0
        self.running = asyncio.Event()
        self.running.set()
        self._image = image
        self._due = 0.0

    async def recv(self) -> av.VideoFrame:
        """Return the next frame when it is due."""
        await self.running.wait()
        now = time.monotonic()
        self._due = max(self._due + 1 / self.fps, now)
        await asyncio.sleep(self._due - now)
        frame = av.VideoFrame.from_ndarray(self._image(self.number), format="bgr24")
        frame = frame.reformat(format="yuv420p")
        # Take timestamps from the clock, not from the frame count, so that a slow encoder does not look like
        # a slow network.
        frame.pts, frame.time_base = int(time.monotonic() * 90_000), CLOCK
        self.number += 1
        return frame


class WebrtcClient:
    """Runs one session; ``async with`` sends the offer, connects, and closes at the end."""

    def __init__(
        self,
        url: str,
        *,
        kind: str = "webrtc",
        track: Track | None = None,
        codec: str = "video/VP8",
        key: str = "",
        headers: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        change_answer: Callable[[str], str] | None = None,
        candidates_later: bool = False,
        direction: str = "sendonly",
    ) -> None:
        self.endpoint = url
        self.kind = kind
        self.track = track or Track()
        self.messages: list[dict[str, Any]] = []
        #: Arrival of each message, in monotonic seconds.
        self.times: list[float] = []
        self.location = ""
        self.answer: dict[str, Any] = {}
        self.response_headers: Any = {}
        #: Seconds from the offer until the server's answer.
        self.answer_s = 0.0
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.control: Any = None
        self._codec = codec
        self._headers = dict(headers or {})
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._body = body or {}
        self._change_answer = change_answer
        self._candidates_later = candidates_later
        self._direction = direction
        self._news = asyncio.Event()
        self.http = aiohttp.ClientSession(headers=self._headers)

    async def __aenter__(self) -> Self:
        try:
            await self._connect()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection without telling the server over HTTP."""
        await self.peer.close()
        await self.http.close()

    async def offer(self) -> str:
        """Return an offer with one video, and with data channels if the session uses them for results."""
        transceiver = self.peer.addTransceiver(self.track, self._direction)
        wanted = [c for c in RTCRtpSender.getCapabilities("video").codecs if c.mimeType == self._codec]
        transceiver.setCodecPreferences(wanted)
        if self.kind == "webrtc":
            results = self.peer.createDataChannel("results", ordered=False, maxRetransmits=0)
            self.control = self.peer.createDataChannel("control")
            for channel in (results, self.control):
                channel.on("message", self._received)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def _connect(self) -> None:
        sdp = await self.offer()
        later = [line[2:] for line in sdp.splitlines() if line.startswith("a=candidate:")]
        if self._candidates_later:
            sdp = "".join(f"{line}\r\n" for line in sdp.splitlines() if "candidate" not in line)
        posted = time.monotonic()
        if self.kind == "webrtc":
            body = {"type": "offer", "sdp": sdp} | self._body
            async with self.http.post(self.endpoint, json=body) as response:
                self.answer = await response.json()
                answer = self.answer.get("sdp", "")
        else:
            headers = {"Content-Type": "application/sdp"}
            async with self.http.post(self.endpoint, data=sdp, headers=headers) as response:
                answer = await response.text()
        self.answer_s = time.monotonic() - posted
        assert response.status == 201, self.answer or answer
        self.response_headers = response.headers
        self.location = response.headers["Location"]
        if self._change_answer is not None:
            answer = self._change_answer(answer)
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        if self._candidates_later:
            patch = {"candidates": [{"candidate": line, "sdpMid": "0"} for line in later]}
            async with self.http.patch(self.location, json=patch) as response:
                assert response.status == 204, await response.text()

    def _received(self, data: str | bytes) -> None:
        self.messages.append(json.loads(data))
        self.times.append(time.monotonic())
        self._news.set()

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the messages of one type that have arrived so far."""
        return [message for message in self.messages if message["type"] == kind]

    async def wait_for(self, kind: str, count: int = 1, timeout_s: float = 60.0) -> list[dict[str, Any]]:
        """Wait until ``count`` messages of a type have arrived; return all of them."""
        async with asyncio.timeout(timeout_s):
            while len(self.of_type(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of_type(kind)

    def send(self, message: dict[str, Any]) -> None:
        """Send a control message."""
        self.control.send(json.dumps(message))

    async def state(self) -> dict[str, Any]:
        """Request the session's state."""
        async with self.http.get(self.location) as response:
            assert response.status == 200, await response.text()
            body: dict[str, Any] = await response.json()
            return body

    async def wait_ended(self, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait until the server reports that the session has ended; return the reason."""
        async with asyncio.timeout(timeout_s):
            while (state := await self.state())["state"] != "ended":
                await asyncio.sleep(0.1)
        reason: dict[str, Any] = state["reason"]
        return reason
