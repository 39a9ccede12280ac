"""Composes what moves streams between replicas: the route for loads, the rebalancer, and its transports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from aiohttp import web

from streamer.accounting.rebalance_metrics import RebalanceMetrics
from streamer.config.replica_addresses import Replicas
from streamer.config.settings import Settings
from streamer.replicas.peer_reports import LOAD_PATH
from streamer.replicas.rebalance_policy import RebalancePolicy
from streamer.replicas.rebalancer import Rebalancer
from streamer.server.load_reports import LoadReports
from streamer.webrtc.mover import WebrtcMover
from streamer.webrtc.peers import Peers
from streamer.websocket.hub import StreamHub
from streamer.websocket.mover import WebSocketMover


def add_rebalancing(
    app: web.Application,
    settings: Settings,
    replicas: Replicas,
    reports: LoadReports,
    hub: StreamHub,
    peers: Peers,
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Add the route to ``app``, and return the context in which streams move.

    Without other replicas nothing runs. With `REBALANCE=0` this replica moves no streams, and still takes
    those of others.
    """
    app.router.add_get(LOAD_PATH, reports.handle, allow_head=False)
    rebalancer: Rebalancer | None = None
    metrics = RebalanceMetrics()
    if settings.peer_addresses and settings.rebalance:
        rebalancer = Rebalancer(
            replicas,
            reports.own,
            RebalancePolicy(settings.rebalance_per_minute / 100, settings.workers),
            reports.shared_status,
            metrics.moved,
            resume_s=settings.stream_resume_s,
        )
        rebalancer.add(WebSocketMover(hub.connections, reports.load_of, hub.background))
        rebalancer.add(WebrtcMover(peers, reports.load_of))
        hub.rebalancer, hub.count_relays = rebalancer, metrics.relayed.set
        peers.rebalancer = rebalancer

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        if rebalancer is not None:
            rebalancer.start()
        yield
        if rebalancer is not None:
            await rebalancer.close()

    return lifetime
