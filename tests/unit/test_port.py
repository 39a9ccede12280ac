"""Tests that closing a port still serves the connections that the kernel has already completed."""

from __future__ import annotations

import asyncio
import socket

from streamer.server.acceptor import close_port


class Greeter(asyncio.Protocol):
    """Says hello to each client and closes its connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


async def test_connections_that_wait_are_served_and_new_ones_are_refused() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    server = await asyncio.get_running_loop().create_server(Greeter, sock=listener)
    # The event loop does not run meanwhile, so all connections wait in the backlog.
    clients = [socket.create_connection(address) for _ in range(5)]
    await close_port(server, listener, Greeter)
    for client in clients:
        with client:
            client.setblocking(False)
            async with asyncio.timeout(60):
                assert await asyncio.get_running_loop().sock_recv(client, 10) == b"hello"
    with socket.socket() as late:
        assert late.connect_ex(address) != 0
