"""Serves ``/health``, ``/livez`` and ``/metrics``, on the main port and on `METRICS_PORT`."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Literal, NotRequired, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field
from typing_extensions import TypedDict

from inference.ipc.engine_set import EngineSet
from inference.ipc.shared_status import SharedStatus, State
from streamer.access.identity import Scope
from streamer.accounting.merged_metrics import render_metrics
from streamer.core.shared_call import SharedCall
from streamer.drift.status_document import DriftStatus, DriftWord
from streamer.http.authentication import AccessState, Authenticator
from streamer.http.caller import hide_in_metrics, identity_of
from streamer.http.connection_limits import ConnectionLimiter, TrackedConnection
from streamer.http.http_connection import SERVER_NAME, ConnectionHandler, limit_connections
from streamer.http.origins import OriginPolicy
from streamer.http.paced_response import PacedResponse
from streamer.http.probe_answers import LivenessDocument, ReplicaState
from streamer.http.problem_details import Problem, problem_middleware
from streamer.sampling.process_handle import SamplingStatus
from streamer.server.acceptor import Acceptor
from streamer.server.liveness import Liveness, ProcessStates, hangs
from streamer.server.served_models import ServedModel, describe_model

_STATES: dict[State, Literal["starting", "loading", "warming", "ok", "restarting"]] = {
    State.STARTING: "starting",
    State.LOADING: "loading",
    State.WARMING: "warming",
    State.READY: "ok",
    State.DOWN: "restarting",
}
_REASONS: dict[ReplicaState, str] = {
    "starting": "the inference process is starting",
    "loading": "models are being loaded",
    "warming": "models are being warmed up, or decoders are being started",
    "restarting": "the inference process has ended and is being restarted",
    "hung": "the inference process does not answer and is being replaced",
    "draining": "this replica is shutting down",
    "saturated": "POSTs have found no room for some seconds; new clients should go to another replica",
}


#: If a worker has had no decoder for this time, it is not ready. Replacing all decoders takes less.
_DECODERS_GONE_S = 1.0


class DecoderStates(TypedDict):
    """The processes in which this worker decodes images."""

    alive: Annotated[int, Field(ge=0, description="Number of processes that take images.")]
    sandbox: Annotated[list[str], Field(description="Protections that apply to every one of them.")]


class EngineHealth(TypedDict):
    """An inference process with its device."""

    engine: Annotated[int, Field(ge=0, description="Number of the engine, as in metrics.")]
    device: Annotated[str, Field(description="Its part of `DEVICE`.")]
    status: Annotated[
        Literal["starting", "loading", "warming", "ok", "restarting", "hung"],
        Field(description="`ok` if it runs frames; otherwise what prevents that."),
    ]
    restarts: Annotated[int, Field(ge=0, description="How often its process was restarted.")]


class HealthDocument(TypedDict):
    """What this replica is doing, and what it serves."""

    status: Annotated[ReplicaState, Field(description="`ok` if it serves; otherwise what prevents that.")]
    models: Annotated[
        dict[str, ServedModel], Field(description="The models by version; empty while they load.")
    ]
    device: Annotated[
        str | None, Field(description="The device on which the models run; null while they are loaded.")
    ]
    engines: Annotated[
        list[EngineHealth], Field(description="The engines; each serves all models on its own device.")
    ]
    inference_restarts: Annotated[
        int, Field(ge=0, description="How often inference processes were restarted.")
    ]
    samples: Annotated[int, Field(ge=0, description="Number of images that were kept as samples.")]
    sampling: Annotated[
        str,
        Field(
            json_schema_extra={"enum": [status.name.lower() for status in SamplingStatus]},
            description="Whether images are kept as samples; `no_spool` if their folder cannot be used.",
        ),
    ]
    drift: Annotated[DriftWord, Field(description="The drift status of all streams, as in `/drift/status`.")]
    access: AccessState
    decoders: DecoderStates
    processes: ProcessStates
    reasons: NotRequired[
        Annotated[
            list[str],
            Field(
                description="Sentences that say why the replica cannot serve, or which process is missing. "
                "Absent if nothing is wrong."
            ),
        ]
    ]


class Decoders(Protocol):
    """Describes the decoder processes of this worker."""

    @property
    def alive(self) -> int:
        """Number of decoders that take images."""

    @property
    def protections(self) -> tuple[str, ...]:
        """Protections that apply to every decoder."""


class Health:
    """Answers probes from the shared status, without asking the inference process."""

    def __init__(
        self,
        shared_status: SharedStatus,
        client: EngineSet,
        metrics_dir: Path,
        versions: tuple[str, ...],
        authenticator: Authenticator,
        decoders: Decoders,
    ) -> None:
        #: Renders the metrics, complete and without names of streams; in a thread, because that reads files.
        self._rendered = SharedCall(self._render)
        self._shared_status = shared_status
        self._liveness = Liveness(shared_status)
        self._client = client
        self._metrics_dir = metrics_dir
        self._versions = versions
        self._authenticator = authenticator
        self._decoders = decoders
        #: When a decoder was last seen alive, in monotonic seconds; 0 before the first.
        self._decoders_seen = 0.0

    @property
    def status(self) -> ReplicaState:
        """What the replica is doing, in one word."""
        if self._shared_status.read("draining"):
            return "draining"
        status = _STATES[self._shared_status.state]
        if self._liveness.inference_hangs:
            return "hung"
        if self._shared_status.read("dying"):
            return "restarting"
        if status == "ok" and not (self._client.ready and self._can_decode()):
            return "warming"
        if status in ("starting", "loading", "warming") and self._shared_status.read("restarts"):
            return "restarting"
        return "saturated" if status == "ok" and self._liveness.saturated else status

    @property
    def serves(self) -> bool:
        """Whether this worker answers requests, perhaps slowly."""
        return self.status in ("ok", "saturated")

    def _can_decode(self) -> bool:
        now = time.monotonic()
        if self._decoders.alive:
            self._decoders_seen = now
        return now - self._decoders_seen < _DECODERS_GONE_S

    def describe(self) -> HealthDocument:
        """Return the body of ``/health``."""
        status = self.status
        models = {version: describe_model(model.info) for version, model in self._client.models.items()}
        body: HealthDocument = {
            "status": status,
            "models": models,
            "device": next((model["provider"] for model in models.values()), None),
            "engines": self._engines(),
            "inference_restarts": int(self._shared_status.read("restarts")),
            "samples": int(self._shared_status.read("samples")),
            "sampling": SamplingStatus(int(self._shared_status.read("sampling"))).name.lower(),
            "drift": DriftStatus(int(self._shared_status.read("drift"))).name.lower(),
            "access": self._authenticator.describe(),
            "decoders": {"alive": self._decoders.alive, "sandbox": list(self._decoders.protections)},
            "processes": self._liveness.describe(),
        }
        # Reasons are stated even while the replica serves, because another worker or the sampling process
        # may be missing.
        reasons = ([] if status == "ok" else [_REASONS[status]]) + self._liveness.reasons()
        if reasons:
            body["reasons"] = reasons
        return body

    def _engines(self) -> list[EngineHealth]:
        """Return the state of each engine of the current generation."""
        found: list[EngineHealth] = []
        for entry in self._client.table.engines:
            engine = self._shared_status.engine(entry.slot)
            ready = engine.state is State.READY
            found.append(
                {
                    "engine": entry.index,
                    "device": entry.device,
                    "status": "hung" if ready and hangs(engine) else _STATES[engine.state],
                    "restarts": int(engine.read("restarts")),
                }
            )
        return found

    async def health(self, _request: web.Request) -> web.Response:
        """Answer 200 when this replica can serve, else 503 with the reasons."""
        body = self.describe()
        ok = body["status"] == "ok"
        return web.json_response(
            body,
            status=200 if ok else 503,
            headers={"Cache-Control": "no-store"} | ({} if ok else {"Retry-After": "2"}),
        )

    async def livez(self, _request: web.Request) -> web.Response:
        """Answer 200 while processes run or are restarted, 503 when nothing restarts a hung process."""
        alive = not self._liveness.abandoned
        body: LivenessDocument = {
            "alive": alive,
            "state": "hung" if self._liveness.inference_hangs else _STATES[self._shared_status.state],
        }
        return web.json_response(body, status=200 if alive else 503, headers={"Cache-Control": "no-store"})

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer with the metrics of all processes of this replica; only administrators get names."""
        return await self._metrics(complete=identity_of(request).may(Scope.ADMIN))

    async def all_metrics(self, _request: web.Request) -> web.Response:
        """Answer with the metrics and all names, on a port that only administrators can reach."""
        return await self._metrics(complete=True)

    async def _metrics(self, *, complete: bool) -> web.Response:
        full, without_names = await self._rendered.result()
        body = full if complete else without_names
        headers = {"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
        return PacedResponse(body=body, headers=headers)

    def _render(self) -> tuple[bytes, bytes]:
        """Return the text of the metrics, and the same text without names."""
        text = render_metrics(self._metrics_dir)
        return text, hide_in_metrics(text)


#: A connection is closed if the headers of its next request are not complete within this time.
_KEEP_ALIVE_S = 15.0
#: Maximum number of connections of scrapers and probes; idle ones are closed to make room.
_CONNECTIONS = 32


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = SERVER_NAME
    response.headers["X-Content-Type-Options"] = "nosniff"


def metrics_port(
    health: Health, origin_policy: OriginPolicy, listener: socket.socket
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a context that serves ``listener`` while the main application runs.

    Every client that can reach the port gets all metrics, so the network must restrict access to the port.
    """

    @web.middleware
    async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not origin_policy.allows_host(request.headers.get(hdrs.HOST)):
            raise Problem(403, "host_not_allowed", "This server is not known by that name (ALLOWED_HOSTS).")
        return await handler(request)

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        limiter = ConnectionLimiter(_CONNECTIONS, _CONNECTIONS)
        app = web.Application(middlewares=[limit_connections(limiter), problem_middleware, check_host])
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

        def connection(tracked: TrackedConnection | None) -> ConnectionHandler:
            return ConnectionHandler(
                manager,
                tracked=tracked,
                limiter=limiter,
                loop=loop,
                access_log=None,
                keepalive_timeout=_KEEP_ALIVE_S,
            )

        port = Acceptor(listener, connection, limiter)
        yield
        port.close()
        await runner.cleanup()

    return lifetime
