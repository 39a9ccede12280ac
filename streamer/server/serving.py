"""Serves the application: connections of the port and of other workers, and the drain at the end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial

from aiohttp import web

from streamer.http.connection_places import Guest
from streamer.http.http_connection import MAX_HEADERS, MAX_LINE_BYTES, ConnectionHandler, limit_connections
from streamer.replicas.session_router import is_private
from streamer.server.acceptor import Acceptor, close_port, places_for
from streamer.server.app import Resources, make_app

log = logging.getLogger("streamer.app")

#: Request headers must be complete within this time, on new and on kept connections.
HEADER_TIMEOUT_S = 15.0
READ_BUFFER_BYTES = 128 << 10
LINGER_S = 2.0
#: Time between closing the port and refusing work: a round trip of a slow client.
LAST_REQUESTS_S = 0.25
#: Clients of a server that shuts down are asked to come back spread over this time.
RETURN_WINDOW_S = 5.0


async def make_runner(
    resources: Resources, listener: socket.socket
) -> tuple[web.AppRunner, Callable[[float], Awaitable[None]]]:
    """Start serving on ``listener``; returns the runner, and the drain to run before its clean-up."""
    settings = resources.settings
    app, parts = make_app(resources)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=settings.drain_timeout_s, handler_cancellation=True
    )
    places = places_for(settings.connections_max, settings.connections_per_address)
    app.middlewares.insert(0, limit_connections(places, partial(resources.shared_status.read, "draining")))
    await runner.setup()
    manager = runner.server
    if manager is None:
        raise RuntimeError("the runner was set up and has no server")
    loop = asyncio.get_running_loop()

    def connection(guest: Guest | None = None) -> ConnectionHandler:
        return ConnectionHandler(
            manager,
            guest=guest,
            places=places,
            loop=loop,
            access_log=None,
            # aiohttp's only deadline for headers is the one for kept connections.
            keepalive_timeout=HEADER_TIMEOUT_S,
            max_line_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            # A compressed body is refused and not inflated.
            auto_decompress=False,
            # For a body that is not read yet; bytes that are read count in the byte budget.
            read_bufsize=READ_BUFFER_BYTES,
            # The rest of a refused body is read and dropped for this time, so that the client sees the
            # answer.
            lingering_time=LINGER_S,
        )

    port = Acceptor(
        listener,
        connection,
        places,
        accepted=lambda: resources.shared_status.count_accepted(resources.number),
        refused=resources.metrics.connections_refused.inc,
    )
    if resources.channel is not None:
        port.adopt_from(resources.channel)
    own_socket = parts.router.own_socket
    if own_socket is not None:
        try:
            own_socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # may have been cleaned up
            if not is_private(own_socket.parent):
                raise PermissionError("the folder belongs to another user, or others may write to it")
            own_socket.unlink(missing_ok=True)  # of a predecessor that was killed
            # Stays open while draining: other workers still forward requests about sessions of this worker.
            await loop.create_unix_server(connection, str(own_socket))
        except OSError as error:  # a path of more than 107 bytes, for one
            log.warning("workers cannot reach each other at %s (%s): set another TMPDIR", own_socket, error)

    async def drain(delay_s: float) -> None:
        # Balancers notice /health first; until they have, requests are still served.
        await asyncio.sleep(delay_s)
        await close_port(port, listener, connection)
        # Requests on connections that were just accepted may still be on their way.
        await asyncio.sleep(LAST_REQUESTS_S)
        # Closes idle connections: no new request enters from here on, and all that have entered are served.
        manager.pre_shutdown()
        parts.dispatcher.draining = True
        window_s = min(RETURN_WINDOW_S, settings.drain_timeout_s)
        await asyncio.gather(parts.hub.drain(window_s), parts.webrtc.peers.drain(window_s))

    return runner, drain
