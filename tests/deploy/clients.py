"""Clients that keep the cookie of a load balancer, and record which replica answered them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from types import TracebackType
from typing import Any, Self

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from streamer.config.replica_addresses import REPLICA_HEADER
from tests.helpers.wire_client import frame_message

COOKIE = "rtva-replica"
_FINGERPRINT = ":".join(["AB"] * 32)
#: An offer of a client that sends no media, because the tests only check the routing of its signalling.
OFFER = f"""v=0\r
o=- 1 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
m=video 9 UDP/TLS/RTP/SAVPF 96\r
c=IN IP4 0.0.0.0\r
a=mid:0\r
a=sendonly\r
a=rtcp-mux\r
a=ice-ufrag:abcd\r
a=ice-pwd:abcdefghijklmnopqrstuv\r
a=fingerprint:sha-256 {_FINGERPRINT}\r
a=setup:actpass\r
a=rtpmap:96 VP8/90000\r
"""
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


class HttpClient:
    """Keeps cookies and connections as a browser does, and records which replicas answered."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.seen: list[str] = []
        #: Status of each POST; 0 if there was no answer.
        self.statuses: list[int] = []
        #: When each POST was answered with 200, in monotonic seconds.
        self.served_at: list[float] = []
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.close()

    async def predict(self, image: bytes) -> None:
        """POST one image and record the outcome."""
        try:
            async with self.http.post(f"{self.base}/v1/predict", data=image) as answer:
                await answer.read()
        except aiohttp.ClientError:
            self.statuses.append(0)
            return
        self.statuses.append(answer.status)
        self.seen.append(answer.headers.get(REPLICA_HEADER, ""))
        if answer.status == 200:
            self.served_at.append(time.monotonic())

    async def keep_posting(self, image: bytes, stop: asyncio.Event, pause_s: float) -> None:
        """POST until ``stop`` is set, with pauses so that many clients do not overload the machine."""
        while not stop.is_set():
            await self.predict(image)
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause_s)

    async def publish(self) -> tuple[str, str]:
        """Make a WHIP session to which no media is sent; return its URL and ETag."""
        async with self.http.post(f"{self.base}/v1/whip", data=OFFER, headers=SDP) as answer:
            text = await answer.text()
            assert answer.status == 201, text
            self.seen.append(answer.headers[REPLICA_HEADER])
            return answer.headers["Location"], answer.headers["ETag"]

    async def request(self, method: str, url: str, expected: int, **options: Any) -> Any:
        """Make a request and check its status; return its JSON, or None for other content."""
        async with self.http.request(method, url, **options) as answer:
            text = await answer.text()
            assert answer.status == expected, f"{method} {url}: {answer.status} {text}"
            self.seen.append(answer.headers[REPLICA_HEADER])
            return json.loads(text) if "json" in answer.content_type else None


class StreamClient:
    """A WebSocket client on the independent `websockets` package; it keeps the cookie by itself."""

    def __init__(self, url: str, image: bytes) -> None:
        self._url = f"{url}/v1/stream"
        self._image = image
        self._cookie: dict[str, str] = {}
        self._seq = 0
        self._session: str | None = None
        self.socket: ClientConnection | None = None
        #: The replica of each connection.
        self.seen: list[str] = []
        self.welcomes: list[dict[str, Any]] = []
        #: When each welcome arrived, in monotonic seconds.
        self.times: list[float] = []
        self.byes: list[dict[str, Any]] = []
        self.closes: list[int] = []
        #: Number of connections that were refused or that ended before their welcome.
        self.refused = 0

    async def open(self) -> None:
        """Connect, send hello and wait for welcome. Raises OSError, InvalidStatus or ConnectionClosed."""
        socket = await connect(
            self._url,
            subprotocols=[Subprotocol("detect.v1.json")],
            additional_headers=self._cookie,
            compression=None,
            ping_interval=None,
        )
        assert socket.response is not None
        headers = socket.response.headers
        for value in headers.get_all("Set-Cookie"):
            name, _, rest = value.partition("=")
            assert name == COOKIE
            self._cookie = {"Cookie": f"{COOKIE}={rest.partition(';')[0]}"}
        hello: dict[str, Any] = {"type": "hello"}
        if self._session is not None:
            hello["resume"] = {"session": self._session}
        await socket.send(json.dumps(hello))
        welcome = json.loads(await socket.recv())
        assert welcome["type"] == "welcome", welcome
        self.socket = socket
        self._session = welcome["session"]
        self.seen.append(headers[REPLICA_HEADER])
        self.welcomes.append(welcome)
        self.times.append(time.monotonic())

    async def drop(self) -> None:
        """Abort the connection without a close frame."""
        assert self.socket is not None
        self.socket.transport.abort()
        await self.socket.wait_closed()

    async def detect(self) -> None:
        """Send one frame and wait for its outcome, which may be a drop on a busy machine."""
        assert self.socket is not None
        self._seq += 1
        await self.socket.send(frame_message(self._seq, self._image))
        while True:
            message = json.loads(await self.socket.recv())
            if message["type"] == "bye":
                self.byes.append(message)
            dropped = message["type"] == "drop" and message["to"] >= self._seq
            if dropped or message.get("seq") == self._seq:
                return

    async def _read_last_words(self) -> None:
        """Record a bye that arrived before the close but that `detect` has not read."""
        assert self.socket is not None
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = json.loads(await self.socket.recv())
                if message["type"] == "bye":
                    self.byes.append(message)

    async def stay(self, stop: asyncio.Event, pause_s: float) -> None:
        """Send frames, and reconnect as the protocol requires, until ``stop`` is set."""
        while not stop.is_set():
            asked_s: float | None = None
            try:
                if self.socket is None:
                    await self.open()
                await self.detect()
                await asyncio.sleep(random.uniform(0.5, 1.5) * pause_s)
            except (OSError, InvalidStatus, ConnectionClosed) as error:
                if self.socket is None:
                    self.refused += 1
                elif isinstance(error, ConnectionClosed):
                    await self._read_last_words()
                    self.closes.append(error.rcvd.code if error.rcvd is not None else 1006)
                    if self.byes and self.closes[-1] == 1012:
                        asked_s = self.byes[-1]["reconnect_ms"] / 1e3
                self.socket = None
                await asyncio.sleep(random.uniform(0.5, 1.0) if asked_s is None else asked_s)

    async def close(self) -> None:
        """Close the connection."""
        if self.socket is not None:
            await self.socket.close()
