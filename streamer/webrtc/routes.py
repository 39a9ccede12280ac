"""Adds WebRTC to an application: routes, headers for other sites' pages, and the parts to start and drain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from streamer.auth import Gate
from streamer.owners import Owners
from streamer.webrtc.json_routes import JsonRoutes
from streamer.webrtc.origin import cors_headers
from streamer.webrtc.peers import Peers
from streamer.webrtc.signalling import Signalling
from streamer.webrtc.whip import WhipRoutes


@dataclass(frozen=True, slots=True)
class Webrtc:
    """WebRTC in one worker."""

    peers: Peers

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """Start and close with the application."""
        await self.peers.start()
        yield
        await self.peers.close()


def add_webrtc(app: web.Application, peers: Peers, gate: Gate, owners: Owners) -> Webrtc:
    """Add it."""
    signalling = Signalling(peers, gate, owners)
    JsonRoutes(signalling).add_to(app)
    WhipRoutes(signalling).add_to(app)

    async def allow_origins(request: web.Request, response: web.StreamResponse) -> None:
        """Pages of allowed origins may read the answers, refusals included."""
        if "/whip" in request.path or "/webrtc" in request.path:
            for name, value in cors_headers(request, gate).items():
                response.headers.setdefault(name, value)

    app.on_response_prepare.append(allow_origins)
    return Webrtc(peers)
