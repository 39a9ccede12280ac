"""The end of a listening port: whoever was let in by the kernel before it closed is served."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol


class Closes(Protocol):
    """What listens: an acceptor or a server of asyncio."""

    def close(self) -> None:
        """Stop listening and close the socket."""


async def close_port(
    server: Closes, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Close ``server``, which listens on ``listener``; serve what waits there by ``protocol``.

    The kernel completes connections by itself and keeps them until they are accepted. Those that wait
    while the socket is closed are reset, after their client may have sent a request.
    """
    waiting: list[socket.socket] = []
    try:
        while True:
            waiting.append(listener.accept()[0])
    except OSError:  # nobody waits, or a descriptor is missing to let them in
        server.close()
    loop = asyncio.get_running_loop()
    for connection in waiting:
        connection.setblocking(False)
        await loop.connect_accepted_socket(protocol, connection)
