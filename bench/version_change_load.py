"""Loads a service while `bench.version_change` changes its models: POSTs and streams at fixed rates."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.helpers.load import End, StreamLoad, Tally
from tests.helpers.webrtc_client import Track, WebrtcClient

#: WebSocket streams: number of them, mode, and codec of the messages.
SOCKETS = ((8, "live", "json"), (4, "live", "msgpack"), (4, "all", "msgpack"))
VIDEOS = 4
STREAMS = sum(number for number, _, _ in SOCKETS) + VIDEOS
#: Longest wait for the first results of all streams.
OPEN_S = 30.0


@dataclass(slots=True)
class Load:
    """Runs the clients during one change and holds what they observe. All times are monotonic seconds."""

    #: Frames per second of each stream.
    fps: float
    posts_per_s: float
    frames: Sequence[bytes]
    end: End = field(default_factory=lambda: End(math.inf))
    posts: int = 0
    #: Failed POSTs by status or type of exception.
    failures: Counter[str] = field(default_factory=Counter)
    #: Failures so far when the change was asked for.
    failed_before: int = 0
    streams: list[StreamLoad] = field(default_factory=list)
    videos: list[WebrtcClient] = field(default_factory=list)
    #: Streams that ended early or could not be opened, by cause.
    closed: Counter[str] = field(default_factory=Counter)

    def open(self, group: asyncio.TaskGroup, session: aiohttp.ClientSession, url: str) -> None:
        """Start all clients of v1 of the service at ``url``; they run until `end`."""
        # Streams do not send at the same time.
        delays_s = (number / STREAMS / self.fps for number in range(STREAMS))
        for number, mode, codec in SOCKETS:
            for _ in range(number):
                stream = StreamLoad(
                    f"{url}/v1/stream",
                    list(self.frames),
                    mode=mode,
                    fps=self.fps,
                    declared_fps=self.fps,
                    codec=codec,
                    obedient=True,
                )
                self.streams.append(stream)
                group.create_task(self._stream(session, stream, next(delays_s)))
        for _ in range(VIDEOS):
            group.create_task(self._video(f"{url}/v1/webrtc", next(delays_s)))
        group.create_task(self._post_at_rate(session, f"{url}/v1/predict"))

    async def until_all_have_results(self) -> None:
        """Wait until every stream has two results. Raises SystemExit if one ends, or after `OPEN_S`."""
        limit = time.monotonic() + OPEN_S
        while (ready := sum(len(times) > 1 for times in self.arrivals())) < STREAMS:
            if self.closed.total():
                raise SystemExit(f"streams could not be opened: {dict(self.closed)}; lower --fps")
            if time.monotonic() > limit:
                raise SystemExit(f"{ready} of {STREAMS} streams have results after {OPEN_S:g} s; lower --fps")
            await asyncio.sleep(0.1)

    def arrivals(self) -> list[list[float]]:
        """Return the arrival times of the results of each stream."""
        of_videos = [
            [at for at, seen in zip(video.times, video.messages, strict=True) if seen["type"] == "result"]
            for video in self.videos
        ]
        return [stream.tally.arrivals for stream in self.streams] + of_videos

    @property
    def unbalanced(self) -> int:
        """Number of frames without exactly one outcome, when all streams have ended."""
        return sum(_unbalanced(stream.tally) for stream in self.streams)

    async def _post_at_rate(self, session: aiohttp.ClientSession, url: str) -> None:
        """POST images at a fixed rate, whether or not earlier ones are answered."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for frame in itertools.cycle(self.frames):
                due += 1.0 / self.posts_per_s
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self.end.passed:
                    return
                self.posts += 1
                group.create_task(self._post(session, url, frame))

    async def _post(self, session: aiohttp.ClientSession, url: str, frame: bytes) -> None:
        try:
            async with session.post(url, data=frame, headers={"Content-Type": "image/jpeg"}) as answer:
                await answer.read()
                if answer.status != 200:
                    self.failures[str(answer.status)] += 1
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.failures[type(error).__name__] += 1

    async def _stream(self, session: aiohttp.ClientSession, stream: StreamLoad, delay_s: float) -> None:
        """Keep one WebSocket stream open until the end."""
        await asyncio.sleep(delay_s)
        try:
            await stream.run(session, self.end)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.closed[type(error).__name__] += 1
            return
        if not self.end.passed or stream.tally.closed != 1000:
            self.closed[f"code {stream.tally.closed}"] += 1

    async def _video(self, url: str, delay_s: float) -> None:
        """Keep one WebRTC session open until the end."""
        await asyncio.sleep(delay_s)
        async with WebrtcClient(url, track=Track(fps=self.fps)) as video:
            self.videos.append(video)
            while not self.end.passed:
                await asyncio.sleep(0.05)
            state = video.peer.connectionState
            if state != "connected" or video.of_type("bye"):
                self.closed[f"WebRTC {state}"] += 1


def _unbalanced(tally: Tally) -> int:
    return abs(tally.sent - tally.results - tally.drops.total() - tally.errors.total())


def longest_pause_s(arrivals: Sequence[Sequence[float]], begin: float, end: float) -> float:
    """Return the longest time between two results of a stream that ends or goes on between two times."""
    pauses = [0.0]
    for times in arrivals:
        for former, latter in itertools.pairwise([*(at for at in times if at < end), end]):
            if latter > begin:
                pauses.append(latter - former)
    return max(pauses)
