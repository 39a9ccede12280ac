"""Requests from a worker to the sampling process and their responses: the client, and framing for both sides.

Requests use the same socket as candidates. The highest bit of a message's length marks a request.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgpack

from inference.ipc import unix_socket

REQUEST_BIT = 1 << 31
#: Largest response. Evidently's report has 4 to 7 MB.
MAX_RESPONSE_BYTES = 64 << 20


class SamplingProcessUnavailable(Exception):
    """The sampling process cannot be reached or does not respond in time."""


async def call(address: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Send a request to the sampling process and return its response. Raises SamplingProcessUnavailable."""
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = unix_socket.connect(address, socket.SOCK_STREAM)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            text = await asyncio.to_thread(msgpack.packb, request)
            writer.write((len(text) | REQUEST_BIT).to_bytes(4, "little") + text)
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(4), "little")
            if size > MAX_RESPONSE_BYTES:
                raise SamplingProcessUnavailable(f"the observer answers with {size} bytes")
            response: dict[str, Any] = msgpack.unpackb(await reader.readexactly(size))
            return response
    except TimeoutError:
        raise SamplingProcessUnavailable(f"the observer did not answer within {timeout_s:g} s") from None
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        raise SamplingProcessUnavailable(f"the observer cannot be reached: {error}") from error
    finally:
        if writer is not None:
            writer.close()


def pack_response(response: dict[str, Any]) -> bytes:
    """Return a response with its length, as it is sent."""
    text: bytes = msgpack.packb(response)
    return len(text).to_bytes(4, "little") + text
