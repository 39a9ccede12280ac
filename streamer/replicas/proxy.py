"""Forwards a request to another process of the service and its answer back: HTTP, event streams, WebSockets.

`session_router` chooses the process. Until the answer has begun, errors of aiohttp pass through unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import aiohttp
from aiohttp import WSMsgType, web

from streamer.http.body import BodyReader, hold_body

#: Seconds until the head of an answer must arrive, so that a process that hangs does not make others hang.
HEAD_S = 5.0
#: Seconds after which a silent event stream ends; longer than the interval of its keep-alive comments.
SILENCE_S = 45.0
CONNECT_S = 2.0
#: Limits of a request's body; the target's own limits are not larger.
BODY_S = 15.0
MAX_BODY_BYTES = 256 << 10
#: Largest message of a client that reads results; the target has the same limit.
MAX_CONTROL_BYTES = 64 << 10
#: Headers that belong to one connection and are not forwarded (RFC 9110 section 7.6.1).
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


async def forward(
    client: aiohttp.ClientSession, base: str, request: web.Request, extra: Mapping[str, str]
) -> web.StreamResponse:
    """Send the request to ``base`` with ``extra`` headers, and answer it with the response.

    Raises aiohttp.ClientError or TimeoutError before the answer has begun, and Problem if the body is
    refused.
    """
    headers = forwarded_headers(request, extra)
    url = f"{base}{request.rel_url.raw_path_qs}"
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _forward_websocket(client, url, request, headers)
    return await _forward_http(client, url, request, headers)


def forwarded_headers(request: web.Request, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with which a request is forwarded; ``extra`` replaces its own."""
    replaced = _HOP_BY_HOP | {name.lower() for name in extra}
    return {
        name: value
        for name, value in request.headers.items()
        if name.lower() not in replaced and not name.lower().startswith("sec-websocket")
    } | dict(extra)


async def _forward_http(
    client: aiohttp.ClientSession, url: str, request: web.Request, headers: dict[str, str]
) -> web.StreamResponse:
    body = await _read_body(request) if request.can_read_body else None
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S)
    async with asyncio.timeout(HEAD_S):
        answer = await client.request(
            request.method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
        )
    async with answer:
        response = web.StreamResponse(status=answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                response.headers.add(name, value)
        await response.prepare(request)
        # An event stream ends when either side closes the connection, so these errors are expected.
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        return response


async def post(
    client: aiohttp.ClientSession, base: str, request: web.Request, extra: Mapping[str, str], body: bytes
) -> web.Response:
    """Send a POST with the address and headers of the request; return the answer, which is not sent yet.

    Raises aiohttp.ClientError or TimeoutError.
    """
    url = f"{base}{request.rel_url.raw_path_qs}"
    async with (
        asyncio.timeout(HEAD_S),
        client.post(
            url, headers=forwarded_headers(request, extra), data=body, allow_redirects=False
        ) as answer,
    ):
        content = await answer.content.read(MAX_BODY_BYTES)
        response = web.Response(status=answer.status, body=content)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                response.headers[name] = value
        return response


async def _read_body(request: web.Request) -> bytes:
    """Return the body, such as ICE candidates. Raises Problem 408, 413 or 503."""
    with hold_body(request) as holding:
        return await BodyReader(request, holding, most_bytes=MAX_BODY_BYTES, limit_s=BODY_S).read_all()


async def _forward_websocket(
    client: aiohttp.ClientSession, url: str, request: web.Request, headers: dict[str, str]
) -> web.StreamResponse:
    theirs = await open_websocket(client, url, request, headers)
    async with theirs:
        chosen = (theirs.protocol,) if theirs.protocol else ()
        ours = web.WebSocketResponse(
            protocols=chosen, compress=False, heartbeat=20, max_msg_size=MAX_CONTROL_BYTES
        )
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


async def open_websocket(
    client: aiohttp.ClientSession,
    url: str,
    request: web.Request,
    headers: Mapping[str, str],
    most_bytes: int = MAX_CONTROL_BYTES,
) -> aiohttp.ClientWebSocketResponse:
    """Open a WebSocket at ``url`` that offers the subprotocols of the request.

    ``most_bytes`` is the size of the largest message. Raises aiohttp.ClientError or TimeoutError.
    """
    offered = [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    async with asyncio.timeout(HEAD_S):
        return await client.ws_connect(
            url,
            headers=headers,
            # A ticket is used up once this process has redeemed it; `Authorization` contains a new one.
            protocols=[name for name in offered if name and not name.startswith("ticket.")],
            compress=0,
            max_msg_size=most_bytes,
        )


async def _pump(
    source: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
    target: aiohttp.ClientWebSocketResponse | web.WebSocketResponse,
) -> None:
    """Forward messages in one direction until the source closes."""
    async for message in source:
        if message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
    await target.close(code=source.close_code or 1000)
