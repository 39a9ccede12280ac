"""Holds one WebRTC session that sends a video to the service, and the video's RTP clock. Uses aiortc."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import random
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import aiohttp
import av
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)

from streamer.client.address import Address
from streamer.client.connection import ConnectionLost
from streamer.client.encoder import Pixels
from streamer.client.errors import BadInput, ConnectionFailed, Rejected
from streamer.client.http import retry_after_s
from streamer.protocol.wire import ProtocolError, decode_message

#: Each time is delayed by up to this many ticks, 2.8 ms. That is invisible, and enough to make the distances
#: between 30 frames differ.
DITHER_TICKS = 256
#: Largest difference between equal times. Encoders convert times and may round by one tick.
TOLERANCE_TICKS = 2
_WRAP = 1 << 32


def dithered(ticks: int) -> int:
    """Return a time on the 90 kHz clock plus a small random delay."""
    return ticks + random.randrange(DITHER_TICKS)  # noqa: S311 - not a secret


class RtpOrigin:
    """Learns the random start of the RTP clock from results, and then maps RTP timestamps to times of frames.

    RTP timestamps of a sender are its own times plus a random number that aiortc does not reveal. Because the
    times are dithered, the distances between frames differ, and a few results leave one possible number.
    """

    def __init__(self) -> None:
        #: Possible values of the random number; None before the first result.
        self._candidates: list[int] | None = None

    def learn(self, rtp: int, sent: Iterable[int]) -> None:
        """Learn from the RTP timestamp of a result, whose frame has one of the times ``sent``."""
        possible = [(rtp - pts) % _WRAP for pts in sent]
        if not possible or self.known:
            return
        before = possible if self._candidates is None else self._candidates
        narrowed = [number for number in before if any(_same(number, other) for other in possible)]
        # If none is left, the frame of one of the results was no longer in ``sent``, so start again.
        self._candidates = narrowed or possible

    @property
    def known(self) -> bool:
        """Whether only one value of the random number is still possible."""
        return self._candidates is not None and len(self._candidates) == 1

    def to_pts(self, rtp: int, sent: Collection[int]) -> int | None:
        """Return the time in ``sent`` that has this RTP timestamp; None when it is unknown."""
        if self._candidates is None or len(self._candidates) != 1:
            return None
        wanted = rtp - self._candidates[0]
        return next((pts for pts in sent if _same(pts, wanted)), None)


def _same(one: int, other: int) -> bool:
    """Whether two times on the 32-bit clock are equal except for rounding."""
    return (one - other + TOLERANCE_TICKS) % _WRAP <= 2 * TOLERANCE_TICKS


CLOCK_HZ = 90_000
_CLOCK = fractions.Fraction(1, CLOCK_HZ)
_CLOSE_S = 2.0
_STATUS_TIMEOUT_S = 2.0


class FrameTrack(MediaStreamTrack):
    """Video track whose frames come from ``next_frame``, as pixels (BGR) and time on the 90 kHz clock."""

    kind = "video"

    def __init__(self, next_frame: Callable[[], Awaitable[tuple[Pixels, int]]]) -> None:
        super().__init__()
        self._next_frame = next_frame

    async def recv(self) -> av.VideoFrame:
        """Return the next frame; aiortc calls this when it can encode one."""
        pixels, pts = await self._next_frame()
        frame = av.VideoFrame.from_ndarray(pixels, format="bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = pts, _CLOCK
        return frame


class VideoConnection:
    """A WebRTC session that has received its welcome. Its messages are those of ``detect.v1``."""

    def __init__(self, http: aiohttp.ClientSession, address: Address, tls: ssl.SSLContext | bool) -> None:
        self.welcome: Mapping[str, Any] = {}
        self._http = http
        self._address = address
        self._tls = tls
        self._peer: RTCPeerConnection | None = None
        self._url = ""
        #: Received messages, and None at the end of the connection.
        self._messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def open(self, track: FrameTrack, fields: dict[str, Any], timeout_s: float) -> None:
        """Connect, send ``fields`` with the offer, under their names in hello, and wait for the welcome.

        Raises Rejected (refused permanently), BadInput (a parameter is wrong) or ConnectionFailed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._open(track, fields)
        except TimeoutError:
            raise ConnectionFailed(
                f"no connection to {self._address.shown} within {timeout_s:g} s; is UDP blocked on the way?"
            ) from None

    async def _open(self, track: FrameTrack, fields: dict[str, Any]) -> None:
        described = await self._request("GET", self._address.url)
        servers = [
            RTCIceServer(server["urls"], server.get("username"), server.get("credential"))
            for server in described.get("ice_servers", [])
        ]
        peer = self._peer = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        peer.on("connectionstatechange", self._state_changed)
        for label, lossy in (("results", True), ("control", False)):
            channel = peer.createDataChannel(label, ordered=not lossy, maxRetransmits=0 if lossy else None)
            channel.on("message", self._received)
        peer.addTransceiver(track, "sendonly")
        await peer.setLocalDescription(await peer.createOffer())
        offer = {"type": "offer", "sdp": peer.localDescription.sdp} | fields
        answer = await self._request("POST", self._address.url, offer)
        # Do not use answer["url"]: behind a misconfigured proxy, it could send the API key to another host.
        self._url = f"{self._address.url}/{answer['session']}"
        await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        while not self.welcome:
            message = await self.receive()
            if message["type"] == "welcome":
                self.welcome = message

    def _state_changed(self) -> None:
        if self._peer is not None and self._peer.connectionState in ("failed", "closed"):
            self._messages.put_nowait(None)

    def _received(self, data: str | bytes) -> None:
        with contextlib.suppress(ProtocolError):
            self._messages.put_nowait(decode_message(data))

    async def receive(self) -> dict[str, Any]:
        """Return the next message. Raises ConnectionLost when the session has ended."""
        message = await self._messages.get()
        if message is None:
            raise ConnectionLost("the WebRTC connection was lost")
        if message["type"] == "bye":
            asked = message.get("reconnect_ms")
            raise ConnectionLost(
                self._address.clean(f"the server says: {message.get('reason', '')}"),
                retry_after_s=asked / 1e3 if isinstance(asked, int | float) else None,
            )
        return message

    async def is_gone(self) -> bool:
        """Ask the server and return whether the session has ended. Return False without an answer."""
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT_S):
                state = await self._request("GET", self._url)
        except Rejected as error:
            return error.code in (404, 410)
        except (TimeoutError, ConnectionFailed, BadInput):
            return False
        return state.get("state") == "ended"

    async def close(self) -> None:
        """End the session, within at most 2 * `_CLOSE_S` even if the server does not answer."""
        try:
            with contextlib.suppress(TimeoutError, ConnectionFailed, Rejected, BadInput):
                async with asyncio.timeout(_CLOSE_S):
                    if self._url:
                        await self._request("DELETE", self._url)
        finally:
            # Close the sockets of the peer even if this task is cancelled while it waits for the server.
            if self._peer is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S):
                        await self._peer.close()

    async def _request(self, method: str, url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the JSON of its answer. Raises Rejected, BadInput or ConnectionFailed."""
        try:
            async with self._http.request(
                method, url, json=body, headers=self._address.headers, ssl=self._tls
            ) as response:
                answer = await response.json(content_type=None) if response.status != 204 else {}
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ConnectionFailed(
                self._address.clean(f"cannot reach {self._address.shown}: {error}")
            ) from None
        if response.status < 400:
            return dict(answer or {})
        detail = self._address.clean((answer or {}).get("detail", f"HTTP {response.status}"))
        if response.status == 400:
            raise BadInput(f"the server says: {detail}")
        if response.status < 500 and response.status != 429:
            raise Rejected(f"refused: {detail}", code=response.status)
        raise ConnectionFailed(detail, retry_after_s=retry_after_s(response.headers))
