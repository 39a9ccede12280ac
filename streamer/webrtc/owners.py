"""Brings a request about a session to the worker that owns it: the kernel gave it to any of them.

Each worker also serves HTTP on a Unix socket in the replica's private folder; a session's id begins with
the number of its worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import aiohttp
from aiohttp import WSMsgType, web

from streamer.problems import Problem

_SESSION_ID = re.compile(r"(\d{1,2})-[A-Za-z0-9_-]{24}")
#: Headers of one connection, which the next one has its own of (RFC 9110 section 7.6.1).
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
}


class Owners:
    """Knows where each worker listens; forwards to others, and says which requests are ours."""

    def __init__(self, number: int, workers: int, folder: Path) -> None:
        self._number = number
        self._workers = workers
        self._folder = folder
        self._clients: dict[int, aiohttp.ClientSession] = {}

    @property
    def own_socket(self) -> Path | None:
        """Where this worker listens for the others; None when it is alone."""
        return self._socket(self._number) if self._workers > 1 else None

    def _socket(self, number: int) -> Path:
        return self._folder / f"worker-{number}.sock"

    async def close(self) -> None:
        """Close what was opened to other workers."""
        for client in self._clients.values():
            await client.close()

    async def forward(self, request: web.Request) -> web.StreamResponse | None:
        """Return the owner's answer; None when the session is ours, or nobody's. Raises Problem 503."""
        match = _SESSION_ID.fullmatch(request.match_info["session"])
        if match is None:
            return None
        number = int(match.group(1))
        if number == self._number or number >= self._workers:
            return None
        client = self._clients.get(number)
        if client is None:
            client = self._clients[number] = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket(number)), limit=0), auto_decompress=False
            )
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _forward_websocket(client, request)
            return await _forward_http(client, request)
        except aiohttp.WSServerHandshakeError as error:
            raise Problem(
                error.status, "refused", "The worker of this session refused the WebSocket."
            ) from error
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError) as error:
            raise Problem.unavailable(
                "The worker that has this session is being restarted; the session is lost.", retry_after_s=1
            ) from error


def _headers(request: web.Request) -> dict[str, str]:
    return {
        name: value
        for name, value in request.headers.items()
        if name.lower() not in _HOP_BY_HOP and not name.lower().startswith("sec-websocket")
    }


async def _forward_http(client: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
    timeout = aiohttp.ClientTimeout(total=None, connect=2)
    body = await request.read() if request.can_read_body else None
    async with client.request(
        request.method,
        f"http://worker{request.rel_url.raw_path_qs}",
        headers=_headers(request),
        data=body,
        timeout=timeout,
        allow_redirects=False,
    ) as answer:
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                response.headers.add(name, value)
        await response.prepare(request)
        # Events end where either side goes away.
        with contextlib.suppress(
            aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError
        ):
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response


async def _forward_websocket(client: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    async with client.ws_connect(
        f"http://worker{request.rel_url.raw_path_qs}",
        headers=_headers(request),
        protocols=[name for name in offered if name],
        compress=0,
    ) as theirs:
        chosen = (theirs.protocol,) if theirs.protocol else ()
        ours = web.WebSocketResponse(protocols=chosen, compress=False, heartbeat=20)
        await ours.prepare(request)
        upward = asyncio.create_task(_pump(ours, theirs))
        try:
            await _pump(theirs, ours)
        finally:
            upward.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await upward
            await ours.close(code=theirs.close_code or 1000)
        return ours


async def _pump(
    source: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
    target: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
) -> None:
    """Carry messages one way until the source closes."""
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
    await target.close(code=source.close_code or 1000)
