"""Generates load on a service over loopback for a limited time: streams and POSTs, closed and open loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgpack

_HEADER = struct.Struct("<BBBBIQHHBBH")
_CODEC_PNG = 1
_CODEC_JPEG = 0


@dataclass(slots=True)
class End:
    """Holds the time in monotonic seconds at which a load stops sending; tests may change it meanwhile."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> End:
        """Return the end of a load that starts now and lasts ``seconds``."""
        return cls(time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() >= self.at


@dataclass(slots=True)
class Tally:
    """Counts what a client observed. Latencies last from sending a frame to receiving its result."""

    sent: int = 0
    results: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    #: Arrival of each result, monotonic seconds.
    arrivals: list[float] = field(default_factory=list)
    #: Lowest frame rate that the server granted, or None if it never limited the stream.
    granted_fps: float | None = None
    #: Close code, or None while the socket is open.
    closed: int | None = None

    def merge(self, other: Tally) -> None:
        """Add the counts of another client."""
        self.sent += other.sent
        self.results += other.results
        self.drops += other.drops
        self.errors += other.errors
        self.latencies_s += other.latencies_s
        self.arrivals += other.arrivals

    def percentile_ms(self, share: float) -> float:
        """Return a latency percentile in milliseconds, ``share`` 0 to 1; NaN if there are no results."""
        if not self.latencies_s:
            return float("nan")
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3

    @property
    def balanced(self) -> bool:
        """Whether every frame sent has exactly one outcome."""
        return self.sent == self.results + self.drops.total() + self.errors.total()


def pack(seq: int, payload: bytes, *, png: bool = False) -> bytes:
    """Return a frame message of stream 0; ``ts`` is the time of sending in microseconds."""
    codec = _CODEC_PNG if png else _CODEC_JPEG
    now_us = int(time.monotonic() * 1e6)
    return _HEADER.pack(1, codec, 1, 6, seq, now_us, 0, 0, 0, 0, 0) + payload


class StreamLoad:
    """Sends one stream and reads its outcomes.

    With ``fps`` 0 it sends as fast as the window allows, otherwise at that rate, regardless of the window or,
    with ``obedient``, when the window allows. It
    declares ``declared_fps``, if any. Messages other than frames are msgpack or, with ``codec`` "json", JSON.
    """

    def __init__(
        self,
        url: str,
        images: list[bytes],
        *,
        mode: str = "live",
        fps: float = 0.0,
        params: dict[str, Any] | None = None,
        declared_fps: float | None = None,
        codec: str = "msgpack",
        obedient: bool = False,
    ) -> None:
        self.tally = Tally()
        self._obedient = obedient or not fps
        self._codec = codec
        self._declared = {} if declared_fps is None else {"fps": declared_fps}
        self._url = url
        self._images = itertools.cycle(images)
        self._mode = mode
        self._fps = fps
        self._params = params or {}
        self._ack = 0
        self._window = 0
        self._moved = asyncio.Event()
        self._sent_at: dict[int, float] = {}

    async def run(self, session: aiohttp.ClientSession, until: End) -> Tally:
        """Send until ``until``, then wait up to 30 s for the frames in flight; return the tally."""
        async with session.ws_connect(
            self._url, protocols=[f"detect.v1.{self._codec}"], max_msg_size=0, compress=0, autoping=True
        ) as socket:
            hello = {
                "type": "hello",
                "streams": [{"id": 0, "codec": "jpeg", "mode": self._mode, **self._declared}],
                "params": self._params,
            }
            await self._say(socket, hello)
            reader = asyncio.create_task(self._read(socket))
            try:
                await self._send(socket, until)
                deadline = time.monotonic() + 30
                while not self.tally.balanced and time.monotonic() < deadline and not reader.done():
                    await asyncio.sleep(0.01)
                if not reader.done():
                    await self._say(socket, {"type": "bye", "code": 1000, "reason": "done"})
                    await asyncio.wait_for(reader, 30)
            finally:
                reader.cancel()
        self.tally.closed = socket.close_code
        return self.tally

    async def _say(self, socket: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> None:
        if self._codec == "json":
            await socket.send_json(message)
        else:
            await socket.send_bytes(msgpack.packb(message))

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, until: End) -> None:
        due = time.monotonic()
        while not until.passed and not socket.closed:
            if self._fps:
                due += 1.0 / self._fps
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self._obedient:
                while self.tally.sent + 1 - self._ack > self._window and not socket.closed:
                    if until.passed:
                        return
                    self._moved.clear()
                    # Do not use `asyncio.wait_for` here, because it would start a task for each frame.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await self._moved.wait()
            self.tally.sent += 1
            seq = self.tally.sent
            self._sent_at[seq] = time.monotonic()
            try:
                await socket.send_bytes(pack(seq, next(self._images)))
            except ConnectionError:
                self.tally.sent -= 1
                return

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        tally = self.tally
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                event = msgpack.unpackb(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                event = json.loads(message.data)
            else:
                continue
            now = time.monotonic()
            kind = event["type"]
            if kind == "welcome":
                self._follow(event["flow"])
            elif kind == "result":
                tally.results += 1
                tally.latencies_s.append(now - self._sent_at.pop(event["seq"]))
                tally.arrivals.append(now)
            elif kind == "drop":
                tally.drops[event["reason"]] += event["to"] - event["from"] + 1
            elif kind == "error" and "seq" in event:
                tally.errors[event["code"]] += 1
            if "ack" in event:
                self._ack = max(self._ack, event["ack"])
                self._follow(event)
            self._moved.set()

    def _follow(self, flow: dict[str, Any]) -> None:
        self._window = flow["win"]
        granted_fps = flow.get("max_fps")
        if granted_fps is not None:
            self.tally.granted_fps = min(granted_fps, self.tally.granted_fps or granted_fps)


async def post_in_turn(
    session: aiohttp.ClientSession,
    url: str,
    images: list[bytes],
    until: End,
    *,
    pause_s: float = 0.0,
) -> Tally:
    """POST one image after another until ``until``, with a pause of ``pause_s`` after each answer."""
    tally = Tally()
    for image in itertools.cycle(images):
        if until.passed:
            return tally
        begun = time.monotonic()
        tally.sent += 1
        try:
            async with session.post(url, data=image, headers={"Content-Type": "image/jpeg"}) as answer:
                await answer.read()
                if answer.status == 200:
                    tally.results += 1
                    tally.latencies_s.append(time.monotonic() - begun)
                    tally.arrivals.append(time.monotonic())
                else:
                    tally.errors[str(answer.status)] += 1
        except aiohttp.ClientError as error:
            tally.errors[type(error).__name__] += 1
        if pause_s:
            await asyncio.sleep(pause_s)
    return tally


def total(tallies: list[Tally]) -> Tally:
    """Return the sum of all tallies."""
    whole = Tally()
    for tally in tallies:
        whole.merge(tally)
    return whole


def http_session() -> aiohttp.ClientSession:
    """Return a session without a limit on connections and with a timeout of 30 s per request."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=30)
    )
