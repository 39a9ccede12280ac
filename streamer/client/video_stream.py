"""The stream as video over WebRTC: pictures go through a video encoder, results find their picture again."""

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
from streamer.client.encoder import Picture
from streamer.client.errors import BadInput, ConnectionFailed
from streamer.client.frame_stream import FrameStream
from streamer.client.http import cookies
from streamer.client.options import Options
from streamer.client.params import Params
from streamer.client.pixels import Pixels, as_bgr, decode, resize
from streamer.client.results import Detections, Drop, Ledger, Outcome, Result
from streamer.client.state import Phase, State, Watcher
from streamer.client.video_connection import CLOCK_HZ, Camera, RtpOrigin, VideoConnection, dithered
from streamer.core.backoff import Backoff

#: Frames whose result may still come: two seconds of 30 fps. Older ones count as unanswered.
_MAX_SENT = 60
#: After the last frame: results that have not come by then were lost, or their frames were.
_LAST_RESULTS_S = 1.0
#: A server that died is noticed by ICE after half a minute; results that stay away tell it sooner. Longer
#: than the inference process takes to come back.
_SILENCE_S = 8.0
#: Silence after which the server is asked for the session: one that took its place answers at once.
_ASK_S = 0.5


@dataclass(slots=True)
class _Sent:
    """A picture that went to the encoder."""

    seq: int
    tag: Any
    captured_s: float
    sent_at: float
    width: int
    height: int


class VideoStream(FrameStream):
    """One live stream of pictures as video, to a ``/v1/webrtc`` address; newest picture wins.

    A picture that the server dropped, or
    that was lost on its way, ends as a drop ``unanswered`` when a newer one is answered.
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
        #: Taken, not yet at the encoder.
        self._waiting: tuple[Pixels, _Sent] | None = None
        #: At the encoder or beyond, by time on the 90 kHz clock, oldest first.
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
        """Take no more pictures, wait a moment for the last results, end the session."""
        await super().finish(min(timeout_s, _LAST_RESULTS_S))

    # -- pictures in ---------------------------------------------------------------------------------

    def offer(self, picture: Picture, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a picture without waiting; returns whether it was taken.

        Not taken (and counted in ``ledger.skipped``): no connection, the encoder has one that waits. Raises
        as `FrameStream.offer`, and BadInput for what is no picture.
        """
        self._check_open()
        reason = self._refusal()
        if reason is not None:
            self.skip(reason)
            return False
        self._take(picture, tag, captured_s)
        return True

    async def send(self, picture: Picture, *, tag: Any = None, captured_s: float | None = None) -> None:
        """Offer a picture, waiting until it is taken. Raises as :meth:`offer` does."""
        captured = time.monotonic() if captured_s is None else captured_s
        while True:
            self._check_open()
            if self._refusal() is None:
                self._take(picture, tag, captured)
                return
            await self._notifier.wait()

    def _refusal(self) -> str | None:
        if self._connection is None:
            return "disconnected"
        return None if self._waiting is None else "encoder"

    def _take(self, picture: Picture, tag: Any, captured_s: float | None) -> None:
        pixels = _as_pixels(picture)
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
        """Count a picture that the caller itself left out."""
        self._ledger.offered += 1
        self._ledger.skipped[reason] += 1

    async def _next_picture(self) -> tuple[Pixels, int]:
        """Return the picture that waits; the encoder asks."""
        await self._notifier.until(lambda: self._waiting is not None)
        assert self._waiting is not None  # noqa: S101 - the notifier has just said so
        (pixels, sent), self._waiting = self._waiting, None
        ledger = self._ledger
        ledger.waiting -= 1
        ledger.sent += 1
        ledger.in_flight += 1
        sent.seq, sent.sent_at = ledger.sent, time.monotonic()
        # Of the clock: the encoder's rate control and the server's tracker go by it.
        self._last_pts = max(self._last_pts + 1, dithered(int(sent.sent_at * CLOCK_HZ)))
        self._sent[self._last_pts] = sent
        while len(self._sent) > _MAX_SENT:
            self._drop(next(iter(self._sent)), "unanswered")
        self._notifier.notify()
        return pixels, self._last_pts

    # -- outcomes out --------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The counts as they are now."""
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

    def _let_go(self, reason: str) -> None:
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
            return  # the first two results, before the clock is known; or one that came too late
        for older in [other for other in self._sent if other < pts]:
            self._drop(older, "unanswered")
        sent = self._sent[pts]
        width, height = message["width"], message["height"]
        detections = Detections.from_rows(message["boxes"], self.labels)
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
        patience_s = self._options.give_up_after_s
        give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
        async with aiohttp.ClientSession(cookie_jar=cookies()) as http:
            while True:
                try:
                    await self._serve(http)
                except ConnectionFailed as error:
                    if isinstance(error, ConnectionLost):
                        backoff.reset()
                        give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
                    delay_s = backoff.next_s(error.retry_after_s)
                    if patience_s == 0 or time.monotonic() + delay_s > give_up_at:
                        raise
                    self._set_state(State(Phase.WAITING, str(error), retry_s=delay_s))
                    await asyncio.sleep(delay_s)

    def _offer_fields(self) -> dict[str, Any]:
        """Return what the offer says besides the video, with the names of hello."""
        fields: dict[str, Any] = {"params": self._params.to_wire()}
        if self._options.stream:
            fields["streams"] = [{"id": 0, "name": self._options.stream}]
        return fields

    async def _serve(self, http: aiohttp.ClientSession) -> None:
        """Carry pictures and results in one session. Raises ConnectionFailed at its end."""
        self._set_state(State(Phase.CONNECTING, self._address.shown))
        connection = VideoConnection(http, self._address, self._options.tls.context())
        camera = Camera(self._next_picture)
        try:
            await connection.open(camera, self._offer_fields(), self._options.connect_timeout_s)
            self.model = connection.welcome.get("model", {})
            self._origin = RtpOrigin()
            self._connection = connection
            self._set_state(State(Phase.CONNECTED, self._address.shown))
            self._notifier.notify()
            while True:
                message = await self._receive(connection)
                if message is not None and message["type"] == "result":
                    self._result(message)
        finally:
            self._connection = None
            camera.stop()
            self._let_go("closed" if self._closing else "disconnected")
            await connection.close()

    async def _receive(self, connection: VideoConnection) -> dict[str, Any] | None:
        """Return the next message; None when nothing came and nothing was due. Raises ConnectionLost."""
        silent_since = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(_ASK_S):
                    return await connection.receive()
            except TimeoutError:
                if not self._sent:
                    return None
            if await connection.is_gone():
                # Somebody answers in its place, and can be connected to.
                raise ConnectionLost("the server no longer has this session", retry_after_s=0.0)
            if time.monotonic() - silent_since > _SILENCE_S:
                raise ConnectionLost(f"no result for {_SILENCE_S:g} s")


def _as_pixels(picture: Picture) -> Pixels:
    """Return BGR pixels. Raises BadInput."""
    if isinstance(picture, bytes | bytearray | memoryview):
        return decode(bytes(picture))
    if isinstance(picture, str | PathLike):
        raise BadInput("a video is made of pixels or encoded pictures, not of paths")
    return as_bgr(picture)


def _fit(pixels: Pixels, max_side: int | None) -> Pixels:
    """Return the picture within ``max_side``, with even sides: video has one colour for four pixels."""
    height, width = pixels.shape[:2]
    scale = min(1.0, (max_side or 4096) / max(width, height))
    size = max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)
    if size == (width, height):
        return pixels
    return resize(pixels, size)
