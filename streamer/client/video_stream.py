"""The stream as video over WebRTC: pictures go through a video encoder, results find their picture again."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from types import TracebackType
from typing import Any, Self

import aiohttp
import cv2
import numpy as np

from streamer.client.address import video_address
from streamer.client.backoff import Backoff
from streamer.client.bell import Bell
from streamer.client.cookies import cookies
from streamer.client.encoder import Picture, Pixels, as_bgr, decode
from streamer.client.errors import BadInput, ClientError, ConnectionFailed, StreamClosed
from streamer.client.ledger import Ledger
from streamer.client.link import LinkLost
from streamer.client.options import Options
from streamer.client.params import Params
from streamer.client.results import Detections, Drop, Outcome, Result
from streamer.client.rtp_origin import RtpOrigin, dithered
from streamer.client.state import Phase, State, Watcher
from streamer.client.video_link import CLOCK_HZ, Camera, VideoLink

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


class VideoStream:
    """One live stream of pictures as video, to a ``/v1/webrtc`` address; newest picture wins.

    It has the part of `DetectStream` that sending a source needs. A picture that the server dropped, or
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
        self.state = State(Phase.CLOSED)
        #: What the server said of its model: ``version``, ``name``, ``labels``, ``input``.
        self.model: Mapping[str, Any] = {}
        self._address = video_address(url, token)
        self._params = params or Params()
        self._options = options or Options()
        self._on_state = on_state
        self._ledger = Ledger()
        self._bell = Bell()
        self._outcomes: deque[Outcome] = deque()
        #: Taken, not yet at the encoder.
        self._waiting: tuple[Pixels, _Sent] | None = None
        #: At the encoder or beyond, by time on the 90 kHz clock, oldest first.
        self._sent: OrderedDict[int, _Sent] = OrderedDict()
        self._origin = RtpOrigin()
        self._connected = False
        self._closing = False
        self._failure: ClientError | None = None
        self._runner: asyncio.Task[None] | None = None
        self._last_pts = 0

    # -- life cycle ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run(), name="video-stream")
        self._runner.add_done_callback(lambda _: self._bell.ring())
        try:
            await self._bell.until(lambda: self._connected or self._over)
        except BaseException:
            await self.close()
            raise
        if self._over:
            await self.close()
            self._raise_failure()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.finish() if kind is None else self.close())

    async def finish(self, timeout_s: float = 30.0) -> None:
        """Take no more pictures, wait a moment for the last results, end the session."""
        self._closing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(timeout_s, _LAST_RESULTS_S)):
                await self._bell.until(lambda: self._over or not (self._sent or self._waiting))
        await self.close()

    async def close(self) -> None:
        """End at once; whatever has no outcome yet becomes a drop ``closed``."""
        self._closing = True
        self._let_go("closed")
        runner = self._runner
        if runner is not None:
            runner.cancel()
            await asyncio.wait([runner])
        if self._failure is None:
            self._set_state(State(Phase.CLOSED))
        self._bell.ring()

    @property
    def _over(self) -> bool:
        return self._failure is not None or self._runner is None or self._runner.done()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            self._runner.result()  # a bug of ours: raise what it was

    # -- pictures in ---------------------------------------------------------------------------------

    def offer(self, picture: Picture, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a picture without waiting; returns whether it was taken. Raises as `DetectStream.offer`."""
        self._raise_failure()
        if self._closing or self._over:
            raise StreamClosed("the stream is not open")
        self._ledger.offered += 1
        reason = "disconnected" if not self._connected else "encoder" if self._waiting else None
        if reason is not None:
            self._ledger.skipped[reason] += 1
            return False
        pixels = _as_pixels(picture)
        captured = time.monotonic() if captured_s is None else captured_s
        height, width = pixels.shape[:2]
        sent = _Sent(0, tag, captured, 0.0, width, height)
        self._waiting = (_fit(pixels, self._options.max_side), sent)
        self._ledger.waiting += 1
        self._bell.ring()
        return True

    def skip(self, reason: str) -> None:
        """Count a picture that the caller itself left out."""
        self._ledger.offered += 1
        self._ledger.skipped[reason] += 1

    async def _next_picture(self) -> tuple[Pixels, int]:
        """Return the picture that waits; the encoder asks."""
        await self._bell.until(lambda: self._waiting is not None)
        assert self._waiting is not None  # noqa: S101 - the bell has just said so
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
        self._bell.ring()
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

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome; raises the error that ended the stream after the last one."""
        while not self._outcomes:
            if self._over:
                self._raise_failure()
                raise StopAsyncIteration
            await self._bell.wait()
        return self._outcomes.popleft()

    def _settle(self, pts: int, outcome: Outcome) -> None:
        del self._sent[pts]
        self._ledger.in_flight -= 1
        self._ledger.account(outcome)
        self._outcomes.append(outcome)
        self._bell.ring()

    def _drop(self, pts: int, reason: str) -> None:
        sent = self._sent[pts]
        self._settle(pts, Drop(sent.seq, sent.captured_s, sent.tag, reason))

    def _let_go(self, reason: str) -> None:
        if self._waiting is not None:
            (_, sent), self._waiting = self._waiting, None
            self._ledger.waiting -= 1
            self._ledger.skipped[reason] += 1
            self._outcomes.append(Drop(0, sent.captured_s, sent.tag, reason))
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

    def _set_state(self, state: State) -> None:
        if state != self.state:
            self.state = state
            if self._on_state is not None:
                self._on_state(state)

    async def _run(self) -> None:
        """Connect, serve, and connect again, until closed or refused for good."""
        backoff = Backoff()
        patience_s = self._options.give_up_after_s
        give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
        try:
            async with aiohttp.ClientSession(cookie_jar=cookies()) as http:
                while True:
                    try:
                        await self._serve(http)
                    except ConnectionFailed as error:
                        if isinstance(error, LinkLost):
                            backoff.reset()
                            give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
                        delay_s = backoff.next_s(error.retry_after_s)
                        if patience_s == 0 or time.monotonic() + delay_s > give_up_at:
                            raise
                        self._set_state(State(Phase.WAITING, str(error), retry_s=delay_s))
                        await asyncio.sleep(delay_s)
        except ClientError as error:
            self._failure = error
            self._let_go("disconnected")
            self._set_state(State(Phase.CLOSED, str(error)))

    def _wishes(self) -> dict[str, Any]:
        """Return what the offer says besides the video, with the names of hello."""
        wishes: dict[str, Any] = {"params": self._params.to_wire()}
        if self._options.stream:
            wishes["streams"] = [{"id": 0, "name": self._options.stream}]
        return wishes

    async def _serve(self, http: aiohttp.ClientSession) -> None:
        """Carry pictures and results in one session. Raises ConnectionFailed at its end."""
        self._set_state(State(Phase.CONNECTING, self._address.shown))
        link = VideoLink(http, self._address, self._options.tls.context())
        camera = Camera(self._next_picture)
        try:
            await link.open(camera, self._wishes(), self._options.connect_timeout_s)
            self.model = link.welcome.get("model", {})
            self._origin = RtpOrigin()
            self._connected = True
            self._set_state(State(Phase.CONNECTED, self._address.shown))
            self._bell.ring()
            while True:
                message = await self._receive(link)
                if message is not None and message["type"] == "result":
                    self._result(message)
        finally:
            self._connected = False
            camera.stop()
            self._let_go("closed" if self._closing else "disconnected")
            await link.close()

    async def _receive(self, link: VideoLink) -> dict[str, Any] | None:
        """Return the next message; None when nothing came and nothing was due. Raises LinkLost."""
        silent_since = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(_ASK_S):
                    return await link.receive()
            except TimeoutError:
                if not self._sent:
                    return None
            if await link.is_gone():
                # Somebody answers in its place, and can be connected to.
                raise LinkLost("the server no longer has this session", retry_after_s=0.0)
            if time.monotonic() - silent_since > _SILENCE_S:
                raise LinkLost(f"no result for {_SILENCE_S:g} s")


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
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
