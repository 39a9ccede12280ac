"""Fetches images from URLs that clients send, but only from allowed hosts with public addresses.

The host of a URL must be in `IMAGE_URL_HOSTS`. Its name is resolved for each connection, and a socket is made
only after the address to which it will connect has been checked. A name whose address changes in between
(DNS rebinding) is therefore harmless. This module follows redirects itself, and checks each target in the
same way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import hdrs, web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from streamer.access.access_settings import IpAddress
from streamer.config.image_hosts import HostRule
from streamer.core.byte_budget import PIECE_OVERHEAD_BYTES, Holding
from streamer.core.public_address import is_public
from streamer.http.body import GRACE_S, MIN_BYTES_PER_S, PieceBuffer
from streamer.http.problem_details import Problem
from streamer.http.trace_context import TRACEPARENT, current_trace_context
from streamer.imaging.image_header import Limits
from streamer.predict.image_connection import FRAMING_BYTES, ImageConnector, TooMuchFraming

_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Seconds that name resolution, connection and the head of one answer may take together.
_HEAD_S = 5.0
#: Most images that a worker fetches at the same time for all clients together, and for one client.
_MAX_FETCHES = 16
_MAX_FETCHES_OF_ONE = 8
#: Resolving a name blocks a thread. It has its own threads, so that slow name servers block no other work.
_RESOLVER_THREADS = 4
_RETRY_S = 1
#: Size of the buffer for the part of an answer that has arrived but has not been read.
_READ_BUFFER_BYTES = 64 << 10
_SHOWN_CHARS = 100


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """Holds the URL that a client sent in place of an image; ``field`` names its field in error messages."""

    field: str
    url: str


@dataclass(slots=True)
class FilledImages:
    """Holds the images of a request after those at URLs were fetched."""

    #: All images, in order. The bytes of an image that cannot be fetched are empty.
    images: list[bytes | memoryview] = field(default_factory=list)
    #: The problem of each image that cannot be fetched, by its position in ``images``.
    failed: dict[int, Problem] = field(default_factory=dict)
    fetched_bytes: int = 0


class NotPublic(OSError):
    """An address is not that of a public host, so the service does not connect to it."""


class CheckedResolver(AbstractResolver):
    """Resolves host names to allowed addresses, and makes sockets only for allowed addresses."""

    def __init__(self, is_allowed: Callable[[IpAddress], bool]) -> None:
        self._is_allowed = is_allowed
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="image-hosts")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the allowed addresses of a host. Raises NotPublic if it has none, or another OSError."""
        try:
            entries = await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
            )
        except UnicodeError as error:  # a label is empty or has more than 63 characters
            raise OSError("the host name is not valid") from error
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        found = [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=numeric
            )
            for kind, _, protocol, _, address in entries
            if self._allows(str(address[0]))
        ]
        if not found:
            raise NotPublic(f"{host} has no public address")
        return found

    def make_socket(self, target: Any) -> socket.socket:
        """Return a socket for an address as `getaddrinfo` describes it. Raises NotPublic.

        Every connection uses this method, even if the URL contains an address in place of a name.
        """
        family, kind, protocol, _, address = target
        if not self._allows(str(address[0])):
            raise NotPublic("the address is not public")
        return socket.socket(family, kind, protocol)

    def _allows(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:  # such as 2130706433, which a C library would read as 127.0.0.1
            return False
        # An IPv4-mapped IPv6 address reaches an IPv4 host in a form that no URL needs.
        mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
        return not mapped and self._is_allowed(address)

    async def close(self) -> None:
        """Let the threads end, without waiting for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class ImageFetcher:
    """Fetches the images of the clients of one worker from hosts that ``rules`` allow.

    ``is_allowed`` decides whether the service may connect to an address of these hosts.
    """

    def __init__(
        self, rules: Sequence[HostRule], is_allowed: Callable[[IpAddress], bool] = is_public
    ) -> None:
        self._rules = rules
        self._is_allowed = is_allowed
        #: None until the application starts; stays None if no host is allowed.
        self._session: aiohttp.ClientSession | None = None
        #: Number of images that are being fetched, by client.
        self._running: Counter[str] = Counter()

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """Open and close the HTTP client with the application."""
        if self._rules:
            resolver = CheckedResolver(self._is_allowed)
            connector = ImageConnector(
                resolver=resolver,
                socket_factory=resolver.make_socket,
                use_dns_cache=False,
                force_close=True,
                limit=0,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                read_bufsize=_READ_BUFFER_BYTES,
                # HEIC and AVIF are taken, too, but not asked for, because they take longer to decode.
                headers={hdrs.ACCEPT: "image/jpeg, image/png, image/webp", hdrs.ACCEPT_ENCODING: "identity"},
            )
        yield
        if self._session is not None:
            await self._session.close()

    async def fill_in(
        self, images: Sequence[bytes | memoryview | ImageUrl], client: str, limits: Limits, holding: Holding
    ) -> FilledImages:
        """Fetch the images that are given as URLs, one after the other.

        ``holding`` is charged for the fetched images. An image has a Problem 400 if its URL is not allowed,
        413 if it is too large, and 422 if it cannot be fetched or if all images together take longer than
        ``limits.body_timeout_s``. Raises this Problem if the image is the only one, and always raises Problem
        503 if too many images are being fetched or the byte budget has no room.
        """
        left_bytes = limits.total_bytes - sum(len(each) for each in images if not isinstance(each, ImageUrl))
        filled = FilledImages()
        due = asyncio.get_running_loop().time() + limits.body_timeout_s
        for number, each in enumerate(images):
            if not isinstance(each, ImageUrl):
                filled.images.append(each)
                continue
            data: bytes | memoryview = b""
            before_bytes = holding.held_bytes
            try:
                with self._place(client):
                    data = await self._fetch_by(due, each, min(limits.image_bytes, left_bytes), holding)
            except Problem as problem:
                if problem.status >= 500 or len(images) == 1:
                    raise
                filled.failed[number] = problem
                # What has arrived of it counts towards the limit of the request, and is no longer held.
                received_bytes = holding.held_bytes - before_bytes
                left_bytes = max(0, left_bytes - received_bytes)
                holding.give_back(received_bytes)
            left_bytes -= len(data)
            filled.fetched_bytes += len(data)
            filled.images.append(data)
        return filled

    @contextmanager
    def _place(self, client: str) -> Iterator[None]:
        """Count an image while it is being fetched. Raises Problem 503 if there are too many."""
        if self._running.total() >= _MAX_FETCHES or self._running[client] >= _MAX_FETCHES_OF_ONE:
            raise Problem.unavailable("Too many images are being fetched here; try again.", _RETRY_S)
        self._running[client] += 1
        try:
            yield
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    async def _fetch_by(
        self, due: float, image: ImageUrl, most_bytes: int, holding: Holding
    ) -> bytes | memoryview:
        """Fetch an image by a time of the event loop. Raises every expected error as a Problem."""
        try:
            async with asyncio.timeout_at(due):
                return await self._fetch(image, most_bytes, holding)
        except TimeoutError:
            raise _failed(image, "does not arrive in time") from None
        except aiohttp.ClientError as error:
            raise _client_problem(image, error) from error

    async def _fetch(self, image: ImageUrl, most_bytes: int, holding: Holding) -> bytes | memoryview:
        url = self._check(image, image.url)
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._answer(image, url) as answer:
                if answer.status not in _REDIRECTS:
                    return await _read(image, answer, most_bytes, holding)
                location = answer.headers.get(hdrs.LOCATION, "")
            source, url = url, self._check(image, location, url)
            if source.scheme == "https" and url.scheme != "https":
                raise _failed(image, "is redirected from https to http")
        raise _failed(image, f"is redirected more than {_MAX_REDIRECTS} times")

    def _check(self, image: ImageUrl, text: str, source: URL | None = None) -> URL:
        """Parse a URL, or the target of a redirect from ``source``. Raises Problem 400 if not allowed."""
        if not self._rules:
            raise _not_allowed(
                image, "is a URL, and this service fetches no images: IMAGE_URL_HOSTS is not set"
            )
        try:
            # Encoding the URL again could invalidate a signature, which file stores put into the query.
            url = URL(text, encoded=True)
            url = source.join(url) if source is not None else url
            port = url.port
        except ValueError:
            raise _not_allowed(image, "is not a valid URL") from None
        if not text.isascii() or not text.isprintable() or any(char in text for char in ' \\"<>'):
            raise _not_allowed(image, "is not a valid URL: it has characters that must be percent-encoded")
        # Check the host in the spelling of the URL, because that text is resolved. Decoding a label such as
        # `xn--…` may fail or change the name.
        host = url.raw_host
        if url.scheme not in _DEFAULT_PORTS or not host or port is None:
            raise _not_allowed(image, "is no http or https URL")
        if url.user is not None or url.password is not None:
            raise _not_allowed(image, "is a URL with a user or a password")
        is_default = port == _DEFAULT_PORTS[url.scheme]
        if not any(rule.allows(host, port, is_default=is_default) for rule in self._rules):
            what = "is at" if source is None else "is redirected to"
            raise _not_allowed(
                image, f"{what} {host[:_SHOWN_CHARS]}:{port}, which IMAGE_URL_HOSTS does not allow"
            )
        return url.with_fragment(None)

    @asynccontextmanager
    async def _answer(self, image: ImageUrl, url: URL) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise RuntimeError("the application has not been started")
        trace = current_trace_context()
        headers = {TRACEPARENT: trace.traceparent} if trace is not None else None
        try:
            async with asyncio.timeout(_HEAD_S):
                answer = await self._session.get(url, headers=headers, allow_redirects=False)
        except TimeoutError:
            raise _failed(image, f"is at a host that does not answer within {_HEAD_S:g} s") from None
        async with answer:
            yield answer


async def _read(
    image: ImageUrl, answer: aiohttp.ClientResponse, most_bytes: int, holding: Holding
) -> bytes | memoryview:
    if answer.status != 200:
        raise _failed(image, f"is at a host that answers {answer.status}")
    if answer.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise _failed(image, "is sent compressed by its host, although the request forbids it")
    buffer, size = PieceBuffer(most_bytes), 0
    too_large = Problem.too_large(
        f"Field `{image.field}` is a URL of more than {most_bytes} bytes, the limit."
    )
    if (answer.content_length or 0) > most_bytes:
        raise too_large
    # Require the same rate as `BodyReader` does of clients, so that a slow host does not block other fetches.
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout_at(begun + GRACE_S) as limit:
        async for piece in answer.content.iter_any():
            size += len(piece)
            limit.reschedule(begun + GRACE_S + size / MIN_BYTES_PER_S)
            if size > most_bytes:
                raise too_large
            if not holding.take(len(piece) + PIECE_OVERHEAD_BYTES):
                raise Problem.unavailable(
                    "Too many bytes of requests are in flight here; try again.", _RETRY_S
                )
            buffer.add(piece)
    if not size:
        raise _failed(image, "is empty")
    return buffer.take()


def _client_problem(image: ImageUrl, error: aiohttp.ClientError) -> Problem:
    """Return the Problem for a failed request, without aiohttp's text, which may name internal addresses."""
    if isinstance(error, TooMuchFraming):
        return _failed(
            image, f"is sent with more than {FRAMING_BYTES} bytes of headers and chunk sizes by its host"
        )
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, NotPublic):
            return _not_allowed(image, "is at a host without a public address")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return _failed(image, "is at a host whose name cannot be resolved")
        return _failed(image, "is at a host that cannot be reached")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _failed(image, "is at a host whose certificate is not trusted")
    return _failed(image, "cannot be fetched: its host breaks the connection or does not speak HTTP")


def _not_allowed(image: ImageUrl, what: str) -> Problem:
    return Problem.bad_request(f"Field `{image.field}` {what}.", code="url_not_allowed", field=image.field)


def _failed(image: ImageUrl, what: str) -> Problem:
    return Problem(422, "url_failed", f"The image in field `{image.field}` {what}.", field=image.field)
