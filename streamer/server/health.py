"""``/health``, ``/livez`` and ``/metrics``: how this replica is, for people, balancers and Prometheus."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from inference.ipc.client import InferenceClient
from inference.ipc.shared_status import SharedStatus, State
from streamer.access.identity import Scope
from streamer.accounting.metrics import render_metrics
from streamer.drift.status import DriftStatus
from streamer.http.caller import identity_of
from streamer.http.gate import Gate
from streamer.http.paced_response import PacedResponse
from streamer.http.stream_names import hide_in_metrics
from streamer.sampling.process_handle import SamplingStatus
from streamer.server.liveness import Liveness

_STATES = {
    State.STARTING: "starting",
    State.LOADING: "loading",
    State.WARMING: "warming",
    State.READY: "ok",
    State.DOWN: "restarting",
}
_REASONS = {
    "starting": "the inference process is starting",
    "loading": "models are being loaded",
    "warming": "models are being warmed up, or decoders are being started",
    "restarting": "the inference process has ended and is being restarted",
    "hung": "the inference process does not answer and is being replaced",
    "draining": "this replica is shutting down",
    "saturated": "POSTs have found no room for some seconds; new clients should go to another replica",
}


#: Decoders that were all replaced at once are back sooner.
_DECODERS_GONE_S = 1.0


class Decoders(Protocol):
    """The decoder processes of this worker."""

    @property
    def alive(self) -> int:
        """How many take images."""

    @property
    def protections(self) -> tuple[str, ...]:
        """What holds every one of them."""


class Health:
    """Answers probes from the shared status, without asking the inference process."""

    def __init__(
        self,
        board: SharedStatus,
        client: InferenceClient,
        metrics_dir: Path,
        versions: tuple[str, ...],
        gate: Gate,
        decoders: Decoders,
    ) -> None:
        #: What was last rendered, and when that began, monotonic seconds.
        self._rendering = asyncio.Lock()
        self._rendered = (b"", b"")
        self._rendered_at = 0.0
        self._board = board
        self._liveness = Liveness(board)
        self._client = client
        self._metrics_dir = metrics_dir
        self._versions = versions
        self._gate = gate
        self._decoders = decoders
        #: When a decoder was seen last, monotonic seconds; 0 before the first.
        self._decoders_seen = 0.0

    @property
    def status(self) -> str:
        """One word: ok, starting, loading, warming, restarting, hung, draining or saturated."""
        if self._board.read("draining"):
            return "draining"
        status = _STATES[self._board.state]
        if self._liveness.inference_hangs:
            return "hung"
        if self._board.read("dying"):
            return "restarting"
        if status == "ok" and not (self._client.ready and self._can_decode()):
            return "warming"
        if status in ("starting", "loading", "warming") and self._board.read("restarts"):
            return "restarting"
        return "saturated" if status == "ok" and self._liveness.saturated else status

    def _can_decode(self) -> bool:
        now = time.monotonic()
        if self._decoders.alive:
            self._decoders_seen = now
        return now - self._decoders_seen < _DECODERS_GONE_S

    def describe(self) -> dict[str, Any]:
        """Return the body of ``/health``."""
        status = self.status
        models = {
            version: {
                "name": model.info.name,
                "sha256": model.info.sha256,
                "family": model.info.family.value,
                "input": [model.info.input_width, model.info.input_height],
                "classes": len(model.info.labels),
                "provider": model.info.provider,
            }
            for version, model in self._client.models.items()
        }
        body: dict[str, Any] = {
            "status": status,
            "models": models,
            "device": next((model["provider"] for model in models.values()), None),
            "inference_restarts": int(self._board.read("restarts")),
            "samples": int(self._board.read("samples")),
            "sampling": SamplingStatus(int(self._board.read("sampling"))).name.lower(),
            "drift": DriftStatus(int(self._board.read("drift"))).name.lower(),
            "access": self._gate.describe(),
            "decoders": {"alive": self._decoders.alive, "sandbox": list(self._decoders.protections)},
        }
        body["processes"] = self._liveness.describe()
        # Also while it serves: a worker or the sampling process may be missing although this one answers.
        reasons = ([] if status == "ok" else [_REASONS[status]]) + self._liveness.reasons()
        if reasons:
            body["reasons"] = reasons
        return body

    async def health(self, _request: web.Request) -> web.Response:
        """200 when this replica can serve, else 503 with the reason."""
        body = self.describe()
        ok = body["status"] == "ok"
        return web.json_response(
            body,
            status=200 if ok else 503,
            headers={"Cache-Control": "no-store"} | ({} if ok else {"Retry-After": "2"}),
        )

    async def livez(self, _request: web.Request) -> web.Response:
        """200 while everything runs or is brought back; 503 when nobody is left who could."""
        alive = not self._liveness.abandoned
        body = {
            "alive": alive,
            "state": "hung" if self._liveness.inference_hangs else _STATES[self._board.state],
        }
        return web.json_response(body, status=200 if alive else 503, headers={"Cache-Control": "no-store"})

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus text of all processes of this replica; names of streams for administrators alone."""
        return await self._metrics(complete=identity_of(request).may(Scope.ADMIN))

    async def all_metrics(self, _request: web.Request) -> web.Response:
        """The same with every name, for a port that only administrators reach."""
        return await self._metrics(complete=True)

    async def _metrics(self, *, complete: bool) -> web.Response:
        arrived = time.monotonic()
        # One at a time, shared by all who came before it began: many at once would keep the interpreter busy.
        async with self._rendering:
            if self._rendered_at < arrived:
                self._rendered_at = time.monotonic()
                # Reads files: not on the event loop.
                self._rendered = await asyncio.to_thread(self._render)
            full, without_names = self._rendered
        body = full if complete else without_names
        headers = {"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"}
        return PacedResponse(body=body, headers=headers)

    def _render(self) -> tuple[bytes, bytes]:
        """Return the text, and the text without names of streams."""
        text = render_metrics(self._metrics_dir)
        return text, hide_in_metrics(text)
