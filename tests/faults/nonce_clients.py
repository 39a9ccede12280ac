"""Clients that check that each answer belongs to them: streams over WebSockets, posters over HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from tests.faults.nonce import COUNTER, Nonce, read_box
from tests.helpers.load import End, pack

#: Errors for a frame that was lost with an inference process; the client may send it again.
_RETRYABLE = {"inference_restarting", "decoder_restarting", "503"}
#: Longest wait for the outcomes of the frames that were sent.
PATIENCE_S = 60.0


@dataclass(slots=True)
class Account:
    """Counts what one client observed, or several clients together."""

    sent: int = 0
    results: int = 0
    #: Results that belong to another client or to another frame.
    wrong: int = 0
    #: Outcomes of frames that already had one, or that were never sent.
    surplus: int = 0
    #: Frames without any outcome.
    lost: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    #: Connections that ended before their client ended them.
    closed: int = 0
    #: Times of results, and of errors reported to streams, in monotonic seconds.
    arrivals: list[float] = field(default_factory=list)
    error_times: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    def merge(self, other: Account) -> None:
        """Add another account."""
        for name in ("sent", "results", "wrong", "surplus", "lost", "closed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.drops += other.drops
        self.errors += other.errors
        self.arrivals += other.arrivals
        self.error_times += other.error_times
        self.latencies_s += other.latencies_s

    @property
    def final_errors(self) -> dict[str, int]:
        """Number of errors that tell the client not to try again."""
        return {code: count for code, count in self.errors.items() if code not in _RETRYABLE}

    def rate(self, begin: float, end: float) -> float:
        """Return results per second between two times, monotonic seconds."""
        return sum(begin <= at < end for at in self.arrivals) / (end - begin)

    def percentile_s(self, share: float) -> float:
        """Return a percentile of the latency, share 0 to 1; infinite without a result."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("inf")


def together(accounts: list[Account]) -> Account:
    """Return the sum of all accounts."""
    whole = Account()
    for account in accounts:
        whole.merge(account)
    return whole


async def connect(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    """Open a WebSocket. Retry while too many of this address are being opened, as the service asks for."""
    while True:
        try:
            return await session.ws_connect(url, protocols=["detect.v1.json"], compress=0)
        except aiohttp.WSServerHandshakeError as refusal:
            if refusal.status != 503 or refusal.headers is None or "Retry-After" not in refusal.headers:
                raise
            await asyncio.sleep(float(refusal.headers["Retry-After"]))


class NonceStream:
    """One stream; each of its frames encodes the number of its client and a counter."""

    def __init__(self, client: int, *, fps: float = 5.0, mode: str = "live") -> None:
        self.account = Account()
        self._client = client
        self._fps = fps
        self._mode = mode
        self._sent_at: dict[int, float] = {}
        self._ack = self._window = 0
        self._frames = [Nonce(client, counter).image() for counter in range(COUNTER)]

    async def run(self, session: aiohttp.ClientSession, url: str, until: End) -> Account:
        """Send at the fixed rate until ``until``, wait for the outcomes and close; return the account."""
        async with await connect(session, url) as socket:
            streams = [{"id": 0, "codec": "png", "mode": self._mode}]
            await socket.send_json({"type": "hello", "streams": streams})
            reader = asyncio.create_task(self._read(socket))
            try:
                await self._send(socket, until)
                patience = End.after(PATIENCE_S)
                while self._sent_at and not patience.passed and not reader.done():
                    await asyncio.sleep(0.02)
                self.account.closed += reader.done()
            finally:
                reader.cancel()
        self.account.lost += len(self._sent_at)
        return self.account

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, until: End) -> None:
        due, seq = time.monotonic() + self._client % 97 / 97 / self._fps, 0
        while not until.passed and not socket.closed:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / self._fps, time.monotonic())
            if self._mode == "all" and seq + 1 - self._ack > self._window:
                continue  # the server closes a stream in mode all that exceeds its window
            seq += 1
            self.account.sent += 1
            self._sent_at[seq] = time.monotonic()
            try:
                await socket.send_bytes(pack(seq, self._frames[seq % COUNTER], png=True))
            except ConnectionError:  # the reader notices it, too
                return

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        account = self.account
        async for message in socket:
            event = json.loads(message.data)
            kind = event["type"]
            if kind == "welcome":
                self._window = event["flow"]["win"]
            if "ack" in event:
                self._ack, self._window = max(self._ack, event["ack"]), event["win"]
            if kind == "result":
                began = self._end(event["seq"])
                account.results += 1
                account.arrivals.append(time.monotonic())
                account.latencies_s.append(time.monotonic() - began)
                right = Nonce(self._client, event["seq"] % COUNTER)
                account.wrong += [read_box(box) for box in event["boxes"]] != [right]
            elif kind == "drop":
                for seq in range(event["from"], event["to"] + 1):
                    self._end(seq)
                account.drops[event["reason"]] += event["to"] - event["from"] + 1
            elif kind == "error" and "seq" in event:
                self._end(event["seq"])
                account.errors[event["code"]] += 1
                account.error_times.append(time.monotonic())

    def _end(self, seq: int) -> float:
        began = self._sent_at.pop(seq, None)
        self.account.surplus += began is None
        return began or 0.0


class NoncePoster:
    """Posts one image after the other, at most ``rate`` per second."""

    def __init__(self, client: int, *, rate: float = 5.0) -> None:
        self.account = Account()
        self._client = client
        self._rate = rate

    async def run(self, session: aiohttp.ClientSession, url: str, until: End) -> Account:
        """Post until ``until``; return the account."""
        due, number = time.monotonic() + self._client % 97 / 97 / self._rate, 0
        while not until.passed:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + 1 / self._rate, time.monotonic())
            number += 1
            await self._post(session, url, Nonce(self._client, number % COUNTER))
        return self.account

    async def _post(self, session: aiohttp.ClientSession, url: str, nonce: Nonce) -> None:
        account = self.account
        account.sent += 1
        begun = time.monotonic()
        try:
            headers = {"Content-Type": "image/png"}
            async with session.post(url, data=nonce.image(), headers=headers) as answer:
                body = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError) as error:
            account.closed += 1
            account.errors[type(error).__name__] += 1
            return
        if answer.status == 200:
            account.results += 1
            account.arrivals.append(time.monotonic())
            account.latencies_s.append(time.monotonic() - begun)
            account.wrong += [read_box(found["box"]) for found in body["detections"]] != [nonce]
        else:
            account.errors[str(answer.status)] += 1


@dataclass(slots=True)
class Crowd:
    """Streams and posters on one service, each with its own client number."""

    streams: int
    posters: int
    fps: float = 5.0
    mode: str = "live"

    def start(
        self, session: aiohttp.ClientSession, base_url: str, until: End
    ) -> list[tuple[Account, asyncio.Task[Account]]]:
        """Start all of them; return their accounts with their tasks."""
        running = []
        for client in range(self.streams):
            stream = NonceStream(client, fps=self.fps, mode=self.mode)
            running.append((stream.account, stream.run(session, f"{base_url}/v1/stream", until)))
        for client in range(self.streams, self.streams + self.posters):
            poster = NoncePoster(client, rate=self.fps)
            running.append((poster.account, poster.run(session, f"{base_url}/v1/predict", until)))
        return [(account, asyncio.create_task(run)) for account, run in running]
