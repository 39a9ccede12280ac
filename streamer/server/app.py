"""Composes a worker's application: makes every long-lived object, and starts and closes it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from aiohttp import web

from inference.ipc.engine_set import EngineSet
from streamer.accounting.capacity_metrics import CapacityMetrics
from streamer.accounting.ledger import RequestCounters
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.replica_addresses import REPLICA_HEADER, Replicas
from streamer.core.byte_budget import ByteBudget
from streamer.http.authentication import make_authenticator
from streamer.http.body import BUDGET
from streamer.http.guard import Guard
from streamer.http.origins import OriginPolicy
from streamer.http.path_prefix import PATH_PREFIX, PathPrefix
from streamer.http.problem_details import problem_middleware
from streamer.http.tickets import Tickets
from streamer.imaging.image_header import Limits
from streamer.predict import routes as images
from streamer.predict.image_url import ImageFetcher
from streamer.predict.refusals import refusal_middleware
from streamer.predict.request_body import FETCHER, LIMITS
from streamer.replicas.session_router import SessionRouter
from streamer.sampling.sampler import PostSampler
from streamer.scheduling.dispatcher import Dispatcher
from streamer.scheduling.replica_load import ReplicaLoad
from streamer.server.comparison import Comparison, add_comparison
from streamer.server.drift_routes import DriftRoutes, add_drift
from streamer.server.health import Health, metrics_port
from streamer.server.liveness import announce_ready
from streamer.server.load_reports import LoadReports
from streamer.server.openapi import openapi_document
from streamer.server.pages import add_pages
from streamer.server.rebalancing import add_rebalancing
from streamer.server.resources import Resources, make_decoders, make_dispatcher, make_engine_set
from streamer.server.sampling import Sampling, make_shadow_runs
from streamer.server.shadow_routes import add_shadow
from streamer.server.split_routes import add_split
from streamer.server.version_routes import VersionRoutes, add_version_routes
from streamer.server.versions import Versions
from streamer.versions.model_path import model_folders
from streamer.webrtc.peers import Peers
from streamer.webrtc.routes import Webrtc, add_webrtc
from streamer.websocket.hub import StreamHub

FULLNESS: web.AppKey[Callable[[], float]] = web.AppKey("fullness")
LOAD: web.AppKey[ReplicaLoad] = web.AppKey("load")
ENGINES: web.AppKey[EngineSet] = web.AppKey("engines")


@dataclass(frozen=True, slots=True)
class Parts:
    """Holds the parts of the application that are drained when the worker shuts down."""

    dispatcher: Dispatcher
    hub: StreamHub
    webrtc: Webrtc
    router: SessionRouter


def make_app(resources: Resources) -> tuple[web.Application, Parts]:
    """Return the application with all its routes; nothing is started yet."""
    settings, metrics = resources.settings, resources.metrics
    versions = tuple(settings.models())
    metrics.preset(versions)
    limits = Limits(
        image_bytes=settings.image_max_bytes,
        total_bytes=settings.request_max_bytes,
        max_images=settings.request_max_images,
        image_px=settings.image_max_pixels,
        image_side_px=settings.image_max_side,
        reducible_px=settings.image_reducible_max_pixels,
        decode_bytes=settings.image_decode_max_bytes,
        body_timeout_s=settings.body_timeout_s,
        request_timeout_s=settings.request_timeout_s,
    )
    client, replicas = (
        make_engine_set(resources),
        Replicas(settings.own_address, settings.peer_addresses),
    )
    authenticator, origin_policy = (
        make_authenticator(settings, resources.metrics_dir, metrics.key_refused),
        OriginPolicy(settings.hosts, settings.origins),
    )
    decoders, video_decoders = make_decoders(resources)
    dispatcher, comparison = (
        make_dispatcher(resources, client, limits, decoders),
        Comparison(resources.metrics_dir, resources.number, client),
    )
    stream_limits = limits.for_streams(settings.stream_max_message_bytes, settings.stream_max_pixels)
    sampling = Sampling(
        settings,
        resources.sampling_address,
        metrics.sample_dropped,
        make_shadow_runs(
            dispatcher.idle_runs,
            limits,
            resources.shared_status,
            comparison.collector,
            load=lambda: app[LOAD].load,
        ),
    )
    router = SessionRouter(
        resources.number, settings.workers, resources.metrics_dir, replicas, metrics.request_forwarded
    )
    budget = ByteBudget(settings.byte_budget, metrics.buffer_refused)
    hub = StreamHub(
        dispatcher, metrics, settings, stream_limits, authenticator, sampling.samplers, router, budget
    )
    peers = Peers(
        router.new_id, dispatcher, metrics, settings, stream_limits, sampling.samplers, video_decoders
    )
    peers.is_still_valid = authenticator.is_still_valid

    _follow_inference(client, metrics, dispatcher, hub, peers)
    app = web.Application(
        middlewares=[problem_middleware],
        client_max_size=settings.request_max_bytes,
    )
    Guard(authenticator, origin_policy, replicas.has).add_to(app)
    app.middlewares.append(refusal_middleware)
    app[images.PREDICTOR], app[images.METRICS] = dispatcher, RequestCounters(metrics)
    app[images.SAMPLER] = PostSampler(sampling.samplers)
    app[images.SHADOW] = hub.shadow_runs = peers.shadow_runs = sampling.shadow_runs
    app[LIMITS] = limits
    app[PATH_PREFIX], app[FETCHER] = (
        PathPrefix(settings.root_path, authenticator.addresses),
        ImageFetcher(settings.image_hosts),
    )
    app[ENGINES], app[BUDGET], app[FULLNESS], app[LOAD] = (
        client,
        budget,
        dispatcher.admission.fullness,
        ReplicaLoad(
            resources.shared_status,
            resources.number,
            settings.workers,
            CapacityMetrics(),
            dispatcher.queues,
            client,
            min_fps=settings.stream_min_fps,
        ),
    )
    health = Health(resources.shared_status, client, resources.metrics_dir, versions, authenticator, decoders)
    authenticator.accept_tickets(Tickets(router.tickets, router.redeem_at_issuer), app)
    _add_metrics(app, health, origin_policy, resources.metrics_listener)
    _add_routes(
        app,
        health,
        DriftRoutes(resources.drift_page, resources.shared_status, resources.sampling_address),
        hub,
        comparison,
    )
    configured = settings.models()
    add_version_routes(
        app,
        VersionRoutes(
            resources.control_address,
            model_folders(configured, settings.models_dir),
            settings.model_start_timeout_s,
        ),
    )
    webrtc = add_webrtc(app, peers, origin_policy, router)
    add_pages(
        app,
        openapi_document(),
        data={
            "/versions": Versions(
                client,
                resources.shared_status,
                resources.metrics_dir,
                settings.workers,
                router.replica,
                add_split(
                    app,
                    settings,
                    resources.shared_status,
                    resources.control_address,
                    dispatcher,
                    metrics,
                ).describe,
                add_shadow(
                    app,
                    sampling.shadow_runs,
                    resources.shared_status,
                    settings.body_timeout_s,
                    resources.control_address,
                ).describe,
                comparison,
            ).handle
        },
    )

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        await client.start()
        await dispatcher.start()
        await hub.start()
        yield
        await hub.close()
        await router.close()
        await dispatcher.close()
        await client.close()

    if router.replica:
        _name_replica(app, router.replica)
    # The sender starts first and ends last: streams submit their last candidates when they are closed.
    app.cleanup_ctx.extend(
        [
            *(
                sampling.lifetime,
                lifetime,
                webrtc.lifetime,
                authenticator.lifetime,
                app[FETCHER].lifetime,
            ),
            announce_ready(resources.shared_status, resources.number, health),
            add_rebalancing(
                app,
                settings,
                replicas,
                LoadReports(resources.shared_status, settings.workers, app[LOAD], dispatcher.queues, health),
                hub,
                peers,
            ),
        ]
    )
    return app, Parts(dispatcher, hub, webrtc, router)


def _follow_inference(
    client: EngineSet, metrics: WorkerMetrics, dispatcher: Dispatcher, hub: StreamHub, peers: Peers
) -> None:
    """Tell everybody when the engines go away or come back, and when they serve other models."""

    def on_change(ready: bool) -> None:
        for version in client.models:
            dispatcher.add_version(version)
        metrics.ready.set(ready)
        hub.ready_changed()
        peers.ready_changed(ready)
        if ready:
            dispatcher.pump_all()

    def on_models(versions: set[str]) -> None:
        for version in versions:
            dispatcher.add_version(version)
        hub.models_changed(versions)
        peers.models_changed(versions)

    client.on_change = on_change
    client.on_models = on_models


def _add_routes(
    app: web.Application, health: Health, drift: DriftRoutes, hub: StreamHub, comparison: Comparison
) -> None:
    images.add_routes(app)
    app.router.add_get("/health", health.health)
    app.router.add_get("/livez", health.livez)
    add_drift(app, drift)
    add_comparison(app, comparison)
    app.router.add_get("/stream", hub.handle, allow_head=False)
    app.router.add_get("/{version:v[0-9]+}/stream", hub.handle, allow_head=False)
    app.router.add_post("/{version:v[0-9]+}/stream/{session}", hub.hand_over)


def _add_metrics(
    app: web.Application, health: Health, origin_policy: OriginPolicy, listener: socket.socket | None
) -> None:
    if listener is None:
        app.router.add_get("/metrics", health.metrics)
    else:
        app.cleanup_ctx.append(metrics_port(health, origin_policy, listener))


def _name_replica(app: web.Application, name: str) -> None:
    """Name this replica in every answer; a forwarded answer keeps the name of its replica."""

    async def name_replica(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers.setdefault(REPLICA_HEADER, name)

    app.on_response_prepare.append(name_replica)
