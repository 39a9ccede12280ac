"""Reads what an engine announces of its models, for the supervisor: without NumPy, which `wire` needs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from inference.core.errors import WireError
from inference.ipc import unix_socket
from inference.models.model import ModelInfo

#: `wire.Kind.HELLO`, the first byte of each part of a handshake.
HELLO = 1
#: Longest part, and longest handshake, in bytes.
_PART_BYTES = 256 << 10
_MOST_BYTES = 8 << 20
#: An engine that is ready answers at once.
_TIMEOUT_S = 10.0


async def read_announcement(address: str) -> dict[str, ModelInfo]:
    """Return the models of the engine at ``address`` by version. Raises WireError or OSError."""
    connection = unix_socket.connect(address)
    loop = asyncio.get_running_loop()
    text = bytearray()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                part = await loop.sock_recv(connection, _PART_BYTES)
                if len(part) < 3 or part[0] != HELLO:
                    raise WireError("an engine sent something else than its handshake")
                text += part[2:]
                if len(text) > _MOST_BYTES:
                    raise WireError(f"a handshake is larger than {_MOST_BYTES} bytes")
                if not part[1]:
                    break
        message: dict[str, Any] = json.loads(text)
        return {str(each["version"]): ModelInfo.from_dict(each["model"]) for each in message["versions"]}
    except TimeoutError:
        raise WireError(f"an engine did not send its handshake within {_TIMEOUT_S:g} s") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WireError(f"a handshake does not parse: {error!r:.300}") from error
    finally:
        connection.close()
