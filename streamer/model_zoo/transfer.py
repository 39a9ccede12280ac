"""One try at a download over HTTP: follows redirects, resumes, and says why it ended early."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import hdrs
from yarl import URL

from streamer.client.connection import retry_after_s
from streamer.client.version import client_version
from streamer.model_zoo.address import may_follow, origin_of
from streamer.model_zoo.amounts import size_text
from streamer.model_zoo.entry import MAX_BYTES
from streamer.model_zoo.errors import PullFailed, WrongFile
from streamer.model_zoo.interruption import Interrupted, meaning_of
from streamer.model_zoo.partial import Origin, Partial

#: An answer that brings less than this in the stall time is as good as none.
PACE_BYTES = 16 << 10
_CONNECT_S = 20.0
_MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Answers that may be another one in a moment.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


class Transfer:
    """Fetches one address into an unfinished file.

    ``stall_s``: silence after which a try is given up. ``verified``: a checksum will tell whether parts
    belong together; without one, only an entity tag of the server lets a file be gone on with.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        partial: Partial,
        *,
        expected: int | None,
        verified: bool,
        stall_s: float,
        on_progress: Callable[[int, int | None], None],
    ) -> None:
        self._session = session
        self._url = url
        self._partial = partial
        self._expected = expected
        self._verified = verified
        self._stall_s = stall_s
        self._on_progress = on_progress

    async def run(self) -> None:
        """Fetch what is missing.

        Raises Interrupted when another try may help, PullFailed when none will, WrongFile when the server
        has something of another size, CannotWrite when the disk does not take it.
        """
        headers = self._headers()
        try:
            async with self._request(headers) as response:
                if response.status == 416:
                    # Behind the end: either all is there, or another file is.
                    total = self._partial.origin.total if self._partial.origin else None
                    if total is not None and total == self._partial.size:
                        return
                    self._partial.discard()
                    raise Interrupted("the server has another file than the one begun")
                self._check_status(response)
                await self._receive(response, self._settle(response))
        except aiohttp.ClientError as error:
            raise meaning_of(error, self._partial.size) from error

    def _headers(self) -> dict[str, str]:
        """Return request headers; they ask for the rest where the beginning is known to belong to it."""
        headers: dict[str, str] = {
            # A compressed body has ranges of its own.
            hdrs.ACCEPT_ENCODING: "identity",
            hdrs.ACCEPT: "application/octet-stream, */*;q=0.5",
            hdrs.USER_AGENT: f"real-time-vision-api/{client_version()}",
        }
        origin = self._partial.origin
        if not self._partial.size or origin is None or origin.url != self._url:
            return headers
        if origin.etag:
            headers[hdrs.IF_RANGE] = origin.etag
        elif origin.total is None or not self._verified:
            return headers
        return headers | {hdrs.RANGE: f"bytes={self._partial.size}-"}

    @asynccontextmanager
    async def _request(self, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET, following redirects by hand: aiohttp would follow one from https to http."""
        here = self._url
        for _ in range(_MAX_REDIRECTS):
            try:
                async with asyncio.timeout(max(_CONNECT_S, self._stall_s)):
                    # Signatures in the address of a file store must stay as they were written.
                    response = await self._session.get(
                        URL(here, encoded=True), headers=headers, allow_redirects=False
                    )
            except TimeoutError as error:
                raise Interrupted(f"{origin_of(here)} does not answer") from error
            async with response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                there = response.headers.get(hdrs.LOCATION, "")
            there = _joined(here, there)
            if not may_follow(here, there):
                raise PullFailed(
                    f"{origin_of(here)} redirects to {origin_of(there)}, which is not followed: "
                    "only https is, so that nobody on the way can change the file"
                )
            here = there
        raise PullFailed(f"{origin_of(self._url)} redirects more than {_MAX_REDIRECTS} times")

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        host = origin_of(str(response.url))
        if response.status in _PASSING:
            raise Interrupted(
                f"{host} answers {response.status} {response.reason}",
                retry_after_s=retry_after_s(response.headers),
            )
        if response.status not in (200, 206):
            hint = {
                401: "; it wants a login, which an official release does not",
                403: "; it does not let this address or this network have the file",
                404: "; the file is not there (any more): look at the entry's `source` page",
                407: "; the proxy wants a login: HTTPS_PROXY=http://user:password@host:port",
                410: "; the file was removed: look at the entry's `source` page",
            }.get(response.status, "")
            raise PullFailed(f"{host} answers {response.status} {response.reason}{hint}")
        encoding = response.headers.get(hdrs.CONTENT_ENCODING, "identity")
        if encoding.lower() != "identity":
            raise PullFailed(f"{host} sends the file compressed ({encoding}), although it was asked not to")

    def _settle(self, response: aiohttp.ClientResponse) -> int | None:
        """Bring file and answer together; returns the size of the whole file, None where nobody tells it."""
        length = response.content_length
        if response.status == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, ""))
            begun = self._partial.origin.total if self._partial.origin else None
            told = int(match[3]) if match and match[3] != "*" else None
            if (
                not match
                or int(match[1]) != self._partial.size
                or (None not in (begun, told) and begun != told)
            ):
                self._partial.discard()
                raise Interrupted("the server went on at another place than asked")
            total = told if told is not None else begun
            self._partial.joined = True
        else:
            # The whole file: the server knows no ranges, or has another file than the one begun.
            total = length
            etag = response.headers.get(hdrs.ETAG, "")
            # A weak tag does not promise the same bytes.
            self._partial.begin(Origin(self._url, "" if etag.startswith("W/") else etag, total))
        limit = self._expected if self._expected is not None else MAX_BYTES
        if total is not None and (total != limit if self._expected is not None else total > limit):
            wanted = (
                f"{limit} bytes"
                if self._expected is not None
                else f"at most {limit} bytes, as ONNX files have"
            )
            self._partial.discard()
            raise WrongFile(f"{origin_of(str(response.url))}: expected {wanted}; found {total} bytes")
        self._partial.make_room((total or self._expected or 0) - self._partial.size)
        return total

    async def _receive(self, response: aiohttp.ClientResponse, total: int | None) -> None:
        partial, limit = self._partial, total or self._expected or MAX_BYTES
        loop = asyncio.get_running_loop()
        self._on_progress(partial.size, total)
        mark = partial.size
        try:
            async with asyncio.timeout(self._stall_s) as patience:
                async for data in response.content.iter_any():
                    if partial.size + len(data) > limit:
                        partial.discard()
                        raise WrongFile(
                            f"{origin_of(str(response.url))}: expected {limit} bytes; more than that came"
                        )
                    partial.append(data)
                    self._on_progress(partial.size, total)
                    if partial.size - mark >= PACE_BYTES:
                        mark = partial.size
                        patience.reschedule(loop.time() + self._stall_s)
        except TimeoutError as error:
            raise Interrupted(
                f"less than {size_text(PACE_BYTES)} came in {self._stall_s:g} s; --stall-timeout waits longer"
            ) from error
        if total is not None and partial.size < total:
            raise Interrupted(f"the connection ended after {size_text(partial.size)} of {size_text(total)}")


def _joined(here: str, there: str) -> str:
    """Return where a redirect leads; empty where that cannot be read."""
    try:
        return str(URL(here, encoded=True).join(URL(there, encoded=True))) if there else ""
    except ValueError:
        return ""
