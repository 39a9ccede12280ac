"""Polls an address that returns one image per request, as the snapshot addresses of cameras do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import aiohttp
from yarl import URL

from streamer.client.capture import Captured
from streamer.client.errors import SourceFailed
from streamer.client.http import connect_error_text
from streamer.core.backoff import Backoff
from streamer.core.redact import redact, secrets_of

#: Requests per second without ``--fps``. It is low because some cameras need most of a second for a snapshot.
DEFAULT_FPS = 1.0
#: Largest image that is read; a JPEG of 100 megapixels is smaller.
MAX_BYTES = 64 << 20
REQUEST_TIMEOUT_S = 10.0
_CHUNK_BYTES = 64 << 10


class Snapshots:
    """Yields the images of a snapshot address as frames, except those that the camera says are unchanged.

    ``fps`` is the number of requests per second. Images are not decoded, and their capture times are their
    times of arrival. Certificates are not checked, because those of cameras are self-signed; FFmpeg does not
    check them for videos either.
    """

    live = True
    total = None

    def __init__(
        self,
        address: str,
        *,
        fps: float | None = None,
        reconnect: bool = True,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self.shown = redact(address)
        self._poll = _Poll(address)
        self._interval_s = 1.0 / (fps or DEFAULT_FPS)
        self._reconnect = reconnect
        self._on_trouble = on_trouble or (lambda _: None)

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield the images as they arrive. Raises SourceFailed, but only without ``reconnect``."""
        number, begun, backoff = 0, time.monotonic(), Backoff()
        with _background_loop() as run:
            try:
                while not stop.is_set():
                    asked_at = time.monotonic()
                    try:
                        image = run(self._poll.next_image())
                    except SourceFailed as error:
                        if not self._reconnect:
                            raise
                        delay_s = backoff.next_s()
                        self._on_trouble(f"{error}; next try in {delay_s:.1f} s")
                        stop.wait(delay_s)
                        continue
                    backoff.reset()
                    if image is not None:
                        yield Captured(number, time.monotonic() - begun, self._interval_s, image)
                        number += 1
                    stop.wait(asked_at + self._interval_s - time.monotonic())
            finally:
                run(self._poll.close())


@contextlib.contextmanager
def _background_loop() -> Iterator[Callable[[Coroutine[Any, Any, bytes | None]], bytes | None]]:
    """Run an event loop in a thread of its own, and return a function that waits for a coroutine in it.

    Therefore any thread can read a source, even one that runs an event loop itself, and several threads can.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="snapshots", daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(slots=True)
class _Poll:
    """Requests images from one address over a connection that stays open."""

    address: str = field(repr=False)
    #: None before the first request.
    _session: aiohttp.ClientSession | None = None
    #: Headers that make the next request conditional; their values come from the answer with the last image.
    _conditions: dict[str, str] = field(default_factory=dict)

    async def next_image(self) -> bytes | None:
        """Request the image and return it; None when it has not changed. Raises SourceFailed."""
        shown = redact(self.address)
        try:
            async with self._open_session().get(_bare(self.address), headers=self._conditions) as answer:
                if answer.status == 304:
                    return None
                if answer.status in (401, 403):
                    raise SourceFailed(
                        f"{shown}: the user name or the password is missing or wrong ({answer.status})"
                    )
                if answer.status != 200:
                    raise SourceFailed(f"{shown}: answers HTTP {answer.status}")
                if not answer.content_type.startswith(("image/", "application/octet-stream")):
                    raise SourceFailed(f"{shown}: answers {answer.content_type} instead of an image")
                image = await _read(answer, shown)
                self._conditions = _conditions(answer)
                return image
        except TimeoutError:
            raise SourceFailed(f"{shown}: no answer within {REQUEST_TIMEOUT_S:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise SourceFailed(f"{shown}: cannot connect: {connect_error_text(error)}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise SourceFailed(
                f"{shown}: {redact(error, (self.address, *secrets_of(self.address)))}"
            ) from None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            user, password = _credentials(self.address)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=False, limit=1),
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
                middlewares=() if user is None else (Authentication(user, password),),
            )
        return self._session

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class Authentication:
    """Answers the camera's authentication challenge: with digest if the camera offers it, else with basic.

    An aiohttp middleware. It sends the password only to the origin of the first request, and in clear text
    only if the camera offers basic authentication and no digest.
    """

    def __init__(self, user: str, password: str) -> None:
        self._basic = aiohttp.encode_basic_auth(user, password, encoding="utf-8")
        self._digest = aiohttp.DigestAuthMiddleware(user, password)
        self._wants_basic = False
        #: Scheme, host and port of the first request; a redirect may lead elsewhere.
        self._origin: URL | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send the request; if the camera refuses it for lack of credentials, send it again with them."""
        self._origin = self._origin or request.url.origin()
        if request.url.origin() != self._origin:
            return await handler(request)
        if not self._wants_basic:
            answer = await self._digest(request, handler)
            challenges = " ".join(answer.headers.getall("WWW-Authenticate", ())).lower()
            if answer.status != 401 or "digest" in challenges or "basic" not in challenges:
                return answer
            answer.release()
            self._wants_basic = True
        request.headers["Authorization"] = self._basic
        return await handler(request)


async def _read(answer: aiohttp.ClientResponse, shown: str) -> bytes:
    """Return the body. Raises SourceFailed when it is longer than `MAX_BYTES`."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BYTES:
            raise SourceFailed(f"{shown}: the image is longer than {MAX_BYTES >> 20} MiB")
    return bytes(body)


def _conditions(answer: aiohttp.ClientResponse) -> dict[str, str]:
    """Return the headers with which the next request gets only a newer image (RFC 9110, 13.1)."""
    known = (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since"))
    return {name: answer.headers[given] for given, name in known if given in answer.headers}


def _credentials(address: str) -> tuple[str | None, str]:
    parts = urlsplit(address)
    if parts.username is None:
        return None, ""
    return unquote(parts.username), unquote(parts.password or "")


def _bare(address: str) -> str:
    """Return the address without user name and password."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
