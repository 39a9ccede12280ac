"""Requests for changes of versions, from workers to the supervisor: one line of JSON each way.

Only processes that the supervisor has started as workers are answered
(`streamer.supervisor.control_socket`).
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

from inference.ipc import unix_socket
from streamer.versions.errors import ChangeRefused

#: Longest line of either side, in bytes.
MAX_LINE_BYTES = 256 << 10


class SupervisorUnavailable(Exception):
    """The supervisor cannot be reached or does not answer in time."""


async def ask_supervisor(address: str, request: dict[str, Any], timeout_s: float) -> Any:
    """Send a request, and return its result. Raises ChangeRefused or SupervisorUnavailable.

    ``request`` has a ``verb``, and its parameters under the names of those of the verb.
    """
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = unix_socket.connect(address, socket.SOCK_STREAM)
            reader, writer = await asyncio.open_unix_connection(sock=connection, limit=MAX_LINE_BYTES)
            writer.write(json.dumps(request).encode() + b"\n")
            await writer.drain()
            answer = json.loads(await reader.readuntil(b"\n"))
    except TimeoutError:
        raise SupervisorUnavailable(f"the supervisor did not answer within {timeout_s:g} s") from None
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise SupervisorUnavailable(f"the supervisor cannot be reached: {error}") from error
    finally:
        if writer is not None:
            writer.close()
    if "refused" in answer:
        refused = answer["refused"]
        raise ChangeRefused(refused["code"], refused["text"], conflict=refused["conflict"])
    return answer["result"]


def pack_result(result: Any) -> bytes:
    """Return the line that answers a request."""
    return json.dumps({"result": result}).encode() + b"\n"


def pack_refusal(refused: ChangeRefused) -> bytes:
    """Return the line that refuses a request."""
    body = {"code": refused.code, "text": str(refused), "conflict": refused.conflict}
    return json.dumps({"refused": body}).encode() + b"\n"
