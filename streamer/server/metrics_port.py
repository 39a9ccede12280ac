"""`METRICS_PORT`: serves metrics and probes on a separate port that is not exposed to clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from streamer.http.connection_places import ConnectionPlaces, Guest
from streamer.http.http_connection import SERVER_NAME, ConnectionHandler, limit_connections
from streamer.http.problem_details import Problem, problem_middleware
from streamer.http.sites import Sites
from streamer.server.acceptor import Acceptor
from streamer.server.health import Health

#: Connections of slower scrapers are closed.
_KEEP_ALIVE_S = 15.0
#: Connections of scrapers and probes; silent ones are closed to make room.
_CONNECTIONS = 32


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = SERVER_NAME
    response.headers["X-Content-Type-Options"] = "nosniff"


def metrics_port(
    health: Health, sites: Sites, listener: socket.socket
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a context that serves ``listener`` while the main application runs.

    Every client that reaches the port sees all metrics: access is restricted by the network.
    """

    @web.middleware
    async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not sites.allows_host(request.headers.get(hdrs.HOST)):
            raise Problem(403, "host_not_allowed", "This server is not known by that name (ALLOWED_HOSTS).")
        return await handler(request)

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        places = ConnectionPlaces(_CONNECTIONS, _CONNECTIONS)
        app = web.Application(middlewares=[limit_connections(places), problem_middleware, check_host])
        app.on_response_prepare.append(_add_headers)
        app.router.add_get("/metrics", health.all_metrics)
        app.router.add_get("/health", health.health)
        app.router.add_get("/livez", health.livez)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        manager = runner.server
        if manager is None:
            raise RuntimeError("the runner was set up and has no server")
        loop = asyncio.get_running_loop()

        def connection(guest: Guest | None) -> ConnectionHandler:
            return ConnectionHandler(
                manager,
                guest=guest,
                places=places,
                loop=loop,
                access_log=None,
                keepalive_timeout=_KEEP_ALIVE_S,
            )

        port = Acceptor(listener, connection, places)
        yield
        port.close()
        await runner.cleanup()

    return lifetime
