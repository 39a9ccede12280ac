"""What a worker asks the observer: a message on its socket, and the answer to it. For both sides.

On the wire a question is told from a candidate by the highest bit of its length.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgpack

from inference.ipc import unix_socket as address

QUESTION_BIT = 1 << 31
#: Of an answer: the report of Evidently has 4 to 7 MB.
MAX_ANSWER_BYTES = 64 << 20


class ObserverSilent(Exception):
    """There is no observer, or it does not answer in time."""


async def ask(observer_address: str, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Return the observer's answer. Raises ObserverSilent."""
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = address.connect(observer_address, socket.SOCK_STREAM)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            text = await asyncio.to_thread(msgpack.packb, question)
            writer.write((len(text) | QUESTION_BIT).to_bytes(4, "little") + text)
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(4), "little")
            if size > MAX_ANSWER_BYTES:
                raise ObserverSilent(f"the observer answers with {size} bytes")
            answer: dict[str, Any] = msgpack.unpackb(await reader.readexactly(size))
            return answer
    except TimeoutError:
        raise ObserverSilent(f"the observer did not answer within {timeout_s:g} s") from None
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        raise ObserverSilent(f"the observer cannot be reached: {error}") from error
    finally:
        if writer is not None:
            writer.close()


def pack_answer(answer: dict[str, Any]) -> bytes:
    """Return an answer as it goes over the socket."""
    text: bytes = msgpack.packb(answer)
    return len(text).to_bytes(4, "little") + text
