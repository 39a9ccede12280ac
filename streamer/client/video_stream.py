"""`VideoStream`: sends frames as video over WebRTC, and assigns each result to its frame."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from os import PathLike
from typing import Any

import aiohttp

from streamer.client.address import video_address
from streamer.client.connection import ConnectionLost
from streamer.client.detections import Detections
from streamer.client.encoder import ImageInput, Pixels, as_bgr, check_input, decode, resize
from streamer.client.errors import BadInput, ConnectionFailed
from streamer.client.frame_stream import FrameStream, Phase, State, Watcher, reported_silence
from streamer.client.http import cookies
from streamer.client.options import Options, Params
from streamer.client.results import Drop, Ledger, Outcome, Result
from streamer.client.video_connection import CLOCK_HZ, FrameTrack, RtpOrigin, VideoConnection, dithered
from streamer.core.backoff import Backoff

#: Most sent frames that may wait for a result: two seconds at 30 fps. Older ones end as ``unanswered``.
_MAX_SENT = 60
#: Longest wait for results after the last frame. If a result is not there by then, it or its frame was lost.
_LAST_RESULTS_S = 1.0
#: Time without results after which the client considers the connection lost. It is shorter than the half
#: minute after which ICE notices a dead server, and longer than a restart of the inference process.
_SILENCE_S = 8.0
#: Time without messages after which the client asks whether the session still exists. After a restart, the
#: new server process answers at once that it does not.
_STATUS_AFTER_S = 0.5


@dataclass(slots=True)
class _Sent:
    """An accepted frame, with its original size."""

    seq: int
    tag: Any
    captured_s: float
    sent_at: float
    width: int
    height: int


class VideoStream(FrameStream):
    """Sends a live stream of frames as video to a ``/v1/webrtc`` address; only the newest frame is sent.

    A frame that the server dropped or that was lost ends as a drop ``unanswered`` as soon as a newer frame
    has its result.
    """

    mode = "live"

    def __init__(
        self,
        url: str,
        *,
        params: Params | None = None,
        token: str | None = None,
        options: Options | None = None,
        on_state: Watcher | None = None,
    ) -> None:
        super().__init__(on_state)
        self._address = video_address(url, token)
        self._params = params or Params()
        self._options = options or Options()
        self._ledger = Ledger()
        #: Accepted frame that the encoder has not taken yet.
        self._waiting: tuple[Pixels, _Sent] | None = None
        #: Frames that the encoder has taken, by time on the 90 kHz clock, oldest first.
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._origin = RtpOrigin()
        self._last_pts = 0
        #: None while there is no session.
        self._connection: VideoConnection | None = None

    # -- life cycle ----------------------------------------------------------------------------------

    @property
    def _connected(self) -> bool:
        return self._connection is not None

    @property
    def _pending(self) -> bool:
        return bool(self._sent or self._waiting)

    async def finish(self, timeout_s: float = 30.0) -> None:
        """Accept no more frames, wait at most 1 s for the last results, and end the session."""
        await super().finish(min(timeout_s, _LAST_RESULTS_S))

    # -- frames in ---------------------------------------------------------------------------------

    def offer(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a frame without waiting; return whether it was accepted.

        A frame is refused, and counted in `Ledger.skipped`, when there is no connection or another frame
        waits for the encoder. Raises the same errors as `FrameStream.offer`, and BadInput for a path and for
        bytes that cannot be decoded.
        """
        self._check_open()
        check_input(picture)
        reason = self._refusal()
        if reason is not None:
            self.skip(reason)
            return False
        self._accept(picture, tag, captured_s)
        return True

    async def send(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> None:
        """Offer a frame and wait until it is accepted. Raises the same errors as :meth:`offer`."""
        check_input(picture)
        captured = time.monotonic() if captured_s is None else captured_s
        while True:
            self._check_open()
            if self._refusal() is None:
                self._accept(picture, tag, captured)
                return
            await self._notifier.wait()

    def _refusal(self) -> str | None:
        if self._connection is None:
            return "disconnected"
        return None if self._waiting is None else "encoder"

    def _accept(self, image: ImageInput, tag: Any, captured_s: float | None) -> None:
        pixels = _as_pixels(image)
        captured = time.monotonic() if captured_s is None else captured_s
        height, width = pixels.shape[:2]
        self._waiting = (
            _fit(pixels, self._options.max_side),
            _Sent(0, tag, captured, 0.0, width, height),
        )
        self._ledger.offered += 1
        self._ledger.waiting += 1
        self._notifier.notify()

    def skip(self, reason: str) -> None:
        """Count a frame that the caller does not offer."""
        self._ledger.offered += 1
        self._ledger.skipped[reason] += 1

    async def _next_frame(self) -> tuple[Pixels, int]:
        """Wait for a frame and return it with its time on the 90 kHz clock; the encoder awaits this."""
        await self._notifier.until(lambda: self._waiting is not None)
        assert self._waiting is not None  # noqa: S101 - the condition above
        (pixels, sent), self._waiting = self._waiting, None
        ledger = self._ledger
        ledger.waiting -= 1
        ledger.sent += 1
        ledger.in_flight += 1
        sent.seq, sent.sent_at = ledger.sent, time.monotonic()
        # Use real time, because the encoder's rate control and the server's tracker rely on it.
        self._last_pts = max(self._last_pts + 1, dithered(int(sent.sent_at * CLOCK_HZ)))
        self._sent[self._last_pts] = sent
        while len(self._sent) > _MAX_SENT:
            self._drop(next(iter(self._sent)), "unanswered")
        self._notifier.notify()
        return pixels, self._last_pts

    # -- outcomes out --------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """A copy of the present counts."""
        return self._ledger.copy()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the served model, by class id."""
        return tuple(self.model.get("labels", ()))

    def _settle(self, pts: int, outcome: Outcome) -> None:
        del self._sent[pts]
        self._ledger.in_flight -= 1
        self._ledger.account(outcome)
        self._emit([outcome])

    def _drop(self, pts: int, reason: str) -> None:
        sent = self._sent[pts]
        self._settle(pts, Drop(sent.seq, sent.captured_s, sent.tag, reason))

    def _drop_all(self, reason: str) -> None:
        if self._waiting is not None:
            (_, sent), self._waiting = self._waiting, None
            self._ledger.waiting -= 1
            self._ledger.skipped[reason] += 1
            self._emit([Drop(0, sent.captured_s, sent.tag, reason)])
        for pts in list(self._sent):
            self._drop(pts, reason)

    def _result(self, message: dict[str, Any]) -> None:
        self._origin.learn(message["rtp"], self._sent)
        pts = self._origin.to_pts(message["rtp"], self._sent)
        if pts is None:
            return  # the start of the RTP clock is not known yet (first results), or the result came too late
        for older in [other for other in self._sent if other < pts]:
            self._drop(older, "unanswered")
        sent = self._sent[pts]
        width, height = message["width"], message["height"]
        detections = Detections.from_rows(
            message["boxes"], self.labels, message.get("text"), message.get("format")
        )
        self._settle(
            pts,
            Result(
                sent.seq,
                sent.captured_s,
                sent.tag,
                detections.scaled(sent.width / width, sent.height / height),
                sent.width,
                sent.height,
                message["cfg"],
                time.monotonic() - sent.sent_at,
                message.get("t", {}),
            ),
        )

    # -- sessions ------------------------------------------------------------------------------------

    async def _work(self) -> None:
        backoff = Backoff()
        give_up_after_s = self._options.give_up_after_s
        give_up_at = math.inf if give_up_after_s is None else time.monotonic() + give_up_after_s
        async with aiohttp.ClientSession(cookie_jar=cookies()) as http:
            while True:
                try:
                    await self._serve(http)
                except ConnectionFailed as error:
                    if isinstance(error, ConnectionLost):
                        backoff.reset()
                        give_up_at = (
                            math.inf if give_up_after_s is None else time.monotonic() + give_up_after_s
                        )
                    delay_s = backoff.next_s(error.retry_after_s)
                    if give_up_after_s == 0 or time.monotonic() + delay_s > give_up_at:
                        raise
                    self._set_state(State(Phase.WAITING, str(error), retry_s=delay_s))
                    await asyncio.sleep(delay_s)

    def _offer_fields(self) -> dict[str, Any]:
        """Return the fields of the offer besides the SDP, under the names that they have in hello."""
        fields: dict[str, Any] = {"params": self._params.to_wire()}
        if self._options.stream:
            fields["streams"] = [{"id": 0, "name": self._options.stream}]
        return fields

    async def _serve(self, http: aiohttp.ClientSession) -> None:
        """Carry frames and results in one session. Raises ConnectionFailed when it ends."""
        self._set_state(State(Phase.CONNECTING, self._address.shown))
        connection = VideoConnection(http, self._address, self._options.tls.context())
        track = FrameTrack(self._next_frame)
        try:
            with reported_silence(self._set_state, self._address.shown):
                await connection.open(track, self._offer_fields(), self._options.connect_timeout_s)
            self.model = connection.welcome.get("model", {})
            self._origin = RtpOrigin()
            self._connection = connection
            self._set_state(State(Phase.CONNECTED, self._address.shown))
            self._notifier.notify()
            while True:
                message = await self._receive(connection)
                if message is not None and message["type"] == "result":
                    self._result(message)
                elif message is not None and message["type"] == "configured":
                    self.model = message.get("model", self.model)  # the server may have changed the model
        finally:
            self._connection = None
            track.stop()
            self._drop_all("closed" if self._closing else "disconnected")
            await connection.close()

    async def _receive(self, connection: VideoConnection) -> dict[str, Any] | None:
        """Return the next message; None if none came and no result is due. Raises ConnectionLost."""
        silent_since = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(_STATUS_AFTER_S):
                    return await connection.receive()
            except TimeoutError:
                if not self._sent:
                    return None
            if await connection.is_gone():
                # A server has answered, so the client can reconnect without delay.
                raise ConnectionLost("the server no longer has this session", retry_after_s=0.0)
            if time.monotonic() - silent_since > _SILENCE_S:
                raise ConnectionLost(f"no result for {_SILENCE_S:g} s")


def _as_pixels(image: ImageInput) -> Pixels:
    """Return BGR pixels. Raises BadInput for a path, and for bytes that are not an image."""
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image))
    if isinstance(image, str | PathLike):
        raise BadInput("VideoStream accepts pixels or bytes of image files, but no paths")
    return as_bgr(image)


def _fit(pixels: Pixels, max_side: int | None) -> Pixels:
    """Return the frame reduced to ``max_side``, with even sides as 4:2:0 video requires."""
    height, width = pixels.shape[:2]
    scale = min(1.0, (max_side or 4096) / max(width, height))
    size = max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)
    if size == (width, height):
        return pixels
    return resize(pixels, size)
