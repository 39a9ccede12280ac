"""Makes one attempt at a download over HTTP: follows redirects, resumes, and reports why it ended early."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import hdrs
from yarl import URL

from streamer.client.http import client_version, retry_after_s
from streamer.client.options import Tls
from streamer.model_zoo.download_url import (
    Interrupted,
    PullFailed,
    WrongFile,
    origin_of,
    redirect_allowed,
    same_origin,
)
from streamer.model_zoo.origin import Origin
from streamer.model_zoo.partial_file import DownloadSource, PartialFile
from streamer.model_zoo.registry import MAX_MODEL_BYTES, size_text

#: An attempt that receives fewer bytes than this within the stall time-out is given up.
MIN_BYTES_PER_STALL = 16 << 10
_CONNECT_S = 20.0
_MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: HTTP statuses after which another attempt may soon succeed.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Bytes of an error's body that are read to explain it.
_MAX_ERROR_BYTES = 4096
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Transfer:
    """Downloads one file into a partial file.

    An attempt ends if it receives less than `MIN_BYTES_PER_STALL` within ``stall_s`` seconds. ``verified``
    says that a checksum of the file is known, which will show whether the parts of a resumed download belong
    together. Without a checksum, a download is resumed only if the server sent an entity tag.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        origin: Origin,
        partial: PartialFile,
        *,
        expected: int | None,
        verified: bool,
        stall_s: float,
        on_progress: Callable[[int, int | None], None],
    ) -> None:
        self._session = session
        self._origin = origin
        self._partial = partial
        self._expected = expected
        self._verified = verified
        self._stall_s = stall_s
        self._on_progress = on_progress

    async def run(self) -> None:
        """Download the missing bytes.

        Raises Interrupted when another attempt may succeed, PullFailed when none will, WrongFile when the
        server's file has another size, and CannotWrite when the file cannot be written.
        """
        try:
            async with self._request(self._headers()) as response:
                if response.status == 416:
                    # The range starts after the end: the file is complete, or the server has another one.
                    total = self._partial.source.total if self._partial.source else None
                    if total is not None and total == self._partial.size:
                        return
                    self._partial.discard()
                    raise Interrupted("the server has another file now")
                await self._check_status(response)
                await self._receive(response, self._prepare(response))
        except aiohttp.ClientError as error:
            raise classify_error(error, self._partial.size) from error

    def _headers(self) -> dict[str, str]:
        """Return request headers, with a range if the partial file can be resumed."""
        headers: dict[str, str] = {
            # A range of a compressed body would state positions in the compressed data.
            hdrs.ACCEPT_ENCODING: "identity",
            hdrs.ACCEPT: "application/octet-stream, */*;q=0.5",
            hdrs.USER_AGENT: f"real-time-vision-api/{client_version()}",
        }
        source = self._partial.source
        if not self._partial.size or source is None or source.url != self._origin.identity:
            return headers
        if source.etag:
            headers[hdrs.IF_RANGE] = source.etag
        elif source.total is None or not self._verified:
            return headers
        return headers | {hdrs.RANGE: f"bytes={self._partial.size}-"}

    @asynccontextmanager
    async def _request(self, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET the file and follow redirects, because aiohttp itself would follow one from https to http.

        A redirect to another host gets no credentials: registries redirect to stores whose address is signed.
        """
        first = await self._origin.request(self._session)
        url, headers = first.url, headers | dict(first.headers)
        for _ in range(_MAX_REDIRECTS):
            try:
                async with asyncio.timeout(max(_CONNECT_S, self._stall_s)):
                    # Encoding the URL again would invalidate the signature in a file store's URL.
                    response = await self._session.get(
                        URL(url, encoded=True),
                        headers=headers,
                        allow_redirects=False,
                        **proxy_options(self._session, url),
                    )
            except TimeoutError as error:
                raise Interrupted(f"{origin_of(url)} does not answer") from error
            async with response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                location = response.headers.get(hdrs.LOCATION, "")
                await self._rejection(response)  # S3 redirects if the bucket is in another region
            target = _joined(url, location)
            if not redirect_allowed(url, target):
                raise PullFailed(
                    f"{origin_of(url)} redirects to {origin_of(target)}, which is not followed: "
                    "only https is followed, so that nobody between can change the file"
                )
            if not same_origin(url, target):
                headers = {name: value for name, value in headers.items() if name not in first.headers}
            url = target
        raise PullFailed(f"{origin_of(first.url)} redirects more than {_MAX_REDIRECTS} times")

    async def _check_status(self, response: aiohttp.ClientResponse) -> None:
        host = origin_of(str(response.url))
        if response.status in _TRANSIENT:
            raise Interrupted(
                f"{host} answers {response.status} {response.reason}",
                retry_after_s=retry_after_s(response.headers),
            )
        if response.status not in (200, 206):
            hint = await self._rejection(response)
            if response.status == 407:
                hint = "the proxy asks for a login: HTTPS_PROXY=http://user:password@host:port"
            raise PullFailed(
                f"{host} answers {response.status} {response.reason}{'; ' if hint else ''}{hint}"
            )
        encoding = response.headers.get(hdrs.CONTENT_ENCODING, "identity")
        if encoding.lower() != "identity":
            raise PullFailed(
                f"{host} sends the file compressed ({encoding}), although the request forbids it"
            )

    async def _rejection(self, response: aiohttp.ClientResponse) -> str:
        """Return the hint for an answer that is no success, or raise the error that it means."""
        body = b""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(self._stall_s):
                body = await response.content.read(_MAX_ERROR_BYTES)
        found = self._origin.rejection(response.status, response.headers, body.decode(errors="replace"))
        if isinstance(found, Exception):
            raise found
        return found

    def _prepare(self, response: aiohttp.ClientResponse) -> int | None:
        """Prepare the partial file for this response, and return the whole file's size; None if unknown.

        Raises Interrupted, WrongFile or CannotWrite.
        """
        length = response.content_length
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, ""))
            noted = self._partial.source.total if self._partial.source else None
            stated = int(match[3]) if match and match[3] != "*" else None
            if (
                not match
                or int(match[1]) != self._partial.size
                or (None not in (noted, stated) and noted != stated)
            ):
                self._partial.discard()
                raise Interrupted("the server sent another range than requested")
            total = stated if stated is not None else noted
            self._partial.joined = True
        else:
            # The server sends the whole file: no range was requested, it supports none, or its file changed.
            total = length
            etag = response.headers.get(hdrs.ETAG, "")
            # A weak entity tag does not guarantee identical bytes, so it is not kept.
            self._partial.begin(
                DownloadSource(self._origin.identity, "" if etag.startswith("W/") else etag, total)
            )
        limit = self._expected if self._expected is not None else MAX_MODEL_BYTES
        if total is not None and (total != limit if self._expected is not None else total > limit):
            wanted = (
                f"{limit} bytes"
                if self._expected is not None
                else f"at most {limit} bytes, the largest ONNX file"
            )
            self._partial.discard()
            raise WrongFile(f"{origin_of(str(response.url))}: expected {wanted}; found {total} bytes")
        self._partial.check_space((total or self._expected or 0) - self._partial.size)
        return total

    async def _receive(self, response: aiohttp.ClientResponse, total: int | None) -> None:
        partial, limit = self._partial, total or self._expected or MAX_MODEL_BYTES
        loop = asyncio.get_running_loop()
        self._on_progress(partial.size, total)
        mark = partial.size
        try:
            async with asyncio.timeout(self._stall_s) as stall_timeout:
                async for data in response.content.iter_any():
                    if partial.size + len(data) > limit:
                        partial.discard()
                        raise WrongFile(
                            f"{origin_of(str(response.url))}: expected {limit} bytes; received more"
                        )
                    partial.append(data)
                    self._on_progress(partial.size, total)
                    if partial.size - mark >= MIN_BYTES_PER_STALL:
                        mark = partial.size
                        stall_timeout.reschedule(loop.time() + self._stall_s)
        except TimeoutError as error:
            raise Interrupted(
                f"received less than {size_text(MIN_BYTES_PER_STALL)} in {self._stall_s:g} s; "
                "--stall-timeout waits longer"
            ) from error
        if total is not None and partial.size < total:
            raise Interrupted(f"the connection ended after {size_text(partial.size)} of {size_text(total)}")


def open_session(tls: Tls, stall_s: float, *, netrc: bool) -> aiohttp.ClientSession:
    """Return a session that uses the proxies of the environment, and .netrc only if ``netrc`` is set.

    aiohttp would add a login of .netrc to presigned addresses, which these refuse, and to blob stores.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls.context()),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=stall_s),
        trust_env=netrc,
        auto_decompress=False,
    )


def proxy_options(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Return the options of a request that make it use HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""
    parts = URL(url, encoded=True)
    if session.trust_env or proxy_bypass(parts.host or ""):
        return {}
    proxy = getproxies().get(parts.scheme)
    return {"proxy": proxy} if proxy else {}


def _joined(url: str, location: str) -> str:
    """Return the target of a redirect from ``url``; empty if it cannot be parsed."""
    try:
        return str(URL(url, encoded=True).join(URL(location, encoded=True))) if location else ""
    except ValueError:
        return ""


def classify_error(error: aiohttp.ClientError, done: int) -> Interrupted | PullFailed:
    """Return PullFailed for an error that another attempt would meet again, else Interrupted.

    ``done`` is the number of bytes received. The returned texts name only hosts; those of aiohttp contain
    whole URLs, which may contain signatures.
    """
    final = _permanent_reason(error)
    if final is not None:
        return PullFailed(final)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Interrupted(f"{error.host}:{error.port} cannot be reached: {_os_reason(error.os_error)}")
    if isinstance(
        error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError
    ):
        return Interrupted(f"the connection was cut after {size_text(done)}")
    return Interrupted(f"the connection failed: {type(error).__name__}")


def _permanent_reason(error: aiohttp.ClientError) -> str | None:
    """Return the reason of an error that will not go away by itself, else None."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"{error.host}: the certificate is not trusted ({error.certificate_error}); behind a proxy that "
            "inspects TLS, pass its certificate authority with --ca-file"
        )
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ssl.SSLError):
        return f"{error.host}: TLS failed: {error.os_error.reason}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses: {error.status} {error.message}"
    if isinstance(error, aiohttp.InvalidURL):
        return "an address cannot be parsed; check the entry's `url` and the proxy settings"
    return None


def _os_reason(cause: OSError) -> str:
    # Errors of name resolution have negative numbers, which `os.strerror` does not know, and their own texts.
    if cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return cause.strerror or "no such host"
