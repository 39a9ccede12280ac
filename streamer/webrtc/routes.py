"""Adds WebRTC to an application: its routes, and the sessions to start and close."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from streamer.http.sites import Sites
from streamer.replicas.session_router import SessionRouter
from streamer.webrtc.json_routes import JsonRoutes
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


def add_webrtc(app: web.Application, peers: Peers, sites: Sites, router: SessionRouter) -> Webrtc:
    """Add the routes of WebRTC and WHIP to ``app``; return what to start and close with it."""
    signalling = Signalling(peers, sites, router)
    JsonRoutes(signalling).add_to(app)
    WhipRoutes(signalling).add_to(app)
    return Webrtc(peers)
