"""Serves ``GET /versions``: the served models side by side, what they scored, and what was measured.

The figures are those of all workers of this replica, from the same merged metrics as ``GET /metrics``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from inference.ipc.engine_set import EngineSet
from inference.ipc.served_model import ServedModel
from inference.ipc.shared_status import SharedStatus
from streamer.access.identity import Scope
from streamer.accounting.ledger import VERSIONS
from streamer.accounting.merged_metrics import merge_metrics
from streamer.accounting.version_figures import QUANTILES, Timing, VersionFigures, version_figures
from streamer.core.shared_call import SharedCall
from streamer.http.caller import identity_of, is_local
from streamer.server.comparison import Comparison
from streamer.server.versions_document import (
    BoxCounts,
    Durations,
    Latency,
    LoadedModel,
    Score,
    ServedVersion,
    ShadowDocument,
    SplitDocument,
    Traffic,
    VersionLineage,
    VersionsDocument,
)

_FOR_ADMINISTRATORS = "only keys with the scope `admin` see it"
#: Fields of an evaluation that `absent` names if the manifest lacks them.
_FIGURES = ("map50", "map50_95", "false_per_empty_picture", "intervals", "by_size", "by_class", "run_ms")
#: Fields of a model's card that belong to its lineage.
_LINEAGE = ("training", "promotion", "licence", "source")


#: Routes that change what is served, by the names of their commands.
_COMMANDS = {
    ("PUT", "/versions/shadow"): "shadow",
    ("PUT", "/versions/split"): "split",
    ("POST", "/versions/{version}/load"): "load",
    ("POST", "/versions/promote"): "promote",
    ("POST", "/versions/rollback"): "rollback",
}


class Versions:
    """Answers ``GET /versions``. ``replica`` is empty without peers."""

    def __init__(
        self,
        client: EngineSet,
        shared_status: SharedStatus,
        metrics_dir: Path,
        workers: int,
        replica: str,
        describe_split: Callable[[], SplitDocument],
        describe_shadow: Callable[[], ShadowDocument],
        comparison: Comparison,
    ) -> None:
        self._client = client
        self._shared_status = shared_status
        self._workers = workers
        self._replica = replica
        self._describe_split = describe_split
        self._describe_shadow = describe_shadow
        self._comparison = comparison
        self._figures = SharedCall(lambda: version_figures(merge_metrics(metrics_dir).collect(), VERSIONS))

    async def handle(self, request: web.Request) -> web.Response:
        """Answer the document; only administrators get names of classes and figures of traffic."""
        figures: Mapping[str, VersionFigures] | None = None
        if identity_of(request).may(Scope.ADMIN):
            figures = await self._figures.result()
        versions = {
            version: describe_version(
                model, None if figures is None else figures.get(version, VersionFigures())
            )
            for version, model in self._client.models.items()
        }
        body: VersionsDocument = {
            "workers": self._workers,
            "split": self._describe_split(),
            "shadow": self._describe_shadow(),
            "versions": versions,
            "commands": _commands(request.app),
            "absent": {},
        }
        if self._replica:
            body["replica"] = self._replica
        else:
            body["absent"]["replica"] = "this replica has no peers (REPLICA_PEERS)"
        await self._add_comparison(body, request)
        if (started := self._shared_status.read("started")) > 0:
            body["elapsed_s"] = elapsed_s = round(max(0.0, time.monotonic() - started), 1)
            body["since"] = _utc(time.time() - elapsed_s)
        else:
            body["absent"]["since"] = body["absent"]["elapsed_s"] = "no supervisor has noted the start"
        return web.json_response(body, headers={"Cache-Control": "no-store", "Vary": "Accept"})

    async def _add_comparison(self, body: VersionsDocument, request: web.Request) -> None:
        identity = identity_of(request)
        administrator = identity.may(Scope.ADMIN)
        # As on the route of the pictures: without keys only programs on this machine may see them.
        pictures = administrator and (not identity.anonymous or is_local(request))
        comparison = await self._comparison.document(names=administrator, pictures=pictures)
        if comparison is not None:
            body["comparison"] = comparison
        else:
            body["absent"]["comparison"] = "it needs two versions, and less are loaded"


def _commands(app: web.Application) -> list[str]:
    """Return the commands that this service offers."""
    routes = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    return [name for route, name in _COMMANDS.items() if route in routes]


def describe_version(model: ServedModel, figures: VersionFigures | None) -> ServedVersion:
    """Return what is known of a version; without ``figures`` what everybody may see."""
    absent: dict[str, str] = {}
    names = figures is not None
    body: ServedVersion = {"model": _model(model, absent, names=names), "absent": absent}
    if figures is not None:
        body["traffic"] = _traffic(figures, absent)
    else:
        absent["traffic"] = _FOR_ADMINISTRATORS
    card = model.info.card or {}
    manifest = f"the manifest of {model.info.file or model.info.name}"
    if lineage := _lineage(model):
        body["lineage"] = lineage
    else:
        absent["lineage"] = f"{manifest} has no `parents`, `training`, `licence`, `source`, and no promotion"
    evaluations = card.get("evaluations")
    if isinstance(evaluations, Mapping):
        body["evaluations"] = {
            part: _evaluation(part, score, absent, manifest, names=names)
            for part, score in evaluations.items()
            if isinstance(score, Mapping)
        }
    else:
        writers = "`streamer train` and `streamer promote`"
        absent["evaluations"] = f"{manifest} has no `metrics`, which {writers} write"
    return body


def _model(model: ServedModel, absent: dict[str, str], *, names: bool) -> LoadedModel:
    info = model.info
    body: LoadedModel = {
        "name": info.name,
        "file": info.file,
        "sha256": info.sha256,
        "family": info.family.value,
        "input": [info.input_width, info.input_height],
        "labels": {"count": len(info.labels)},
        "device": info.provider,
        "batches": [{"size": size, "run_ms": round(cost, 3)} for size, cost in sorted(model.cost_ms.items())],
        "threshold": info.default_params.conf_threshold,
    }
    if names:
        body["labels"]["names"] = list(info.labels)
    else:
        absent["model.labels.names"] = _FOR_ADMINISTRATORS
    if info.loaded_at:
        body["loaded_at"] = _utc(info.loaded_at)
    else:
        absent["model.loaded_at"] = "the inference process did not say"
    return body


def _lineage(model: ServedModel) -> VersionLineage | None:
    card = model.info.card or {}
    found: dict[str, Any] = {name: card[name] for name in _LINEAGE if card.get(name)}
    if parents := (model.info.lineage or {}).get("parents"):
        found["parents"] = parents
    return cast(VersionLineage, found) or None


def _evaluation(
    part: str, score: Mapping[str, Any], absent: dict[str, str], manifest: str, *, names: bool
) -> Score:
    body = dict(score)
    for field in _FIGURES:
        if field not in body:
            absent[f"evaluations.{part}.{field}"] = f"{manifest} does not have it"
    if not names and body.pop("by_class", None) is not None:
        absent[f"evaluations.{part}.by_class"] = _FOR_ADMINISTRATORS
    return cast(Score, body)


def _traffic(figures: VersionFigures, absent: dict[str, str]) -> Traffic:
    return {
        "requests": figures.requests.get("200", 0),
        "frames": {
            "received": figures.received,
            "answered": figures.answered,
            "answered_by_transport": figures.answered_by_transport,
            "in_flight": figures.in_flight,
        },
        "boxes": _boxes(figures, absent),
        "errors": {
            "frames_failed": figures.failed,
            "frames_dropped": figures.dropped,
            "requests": figures.refused_requests,
            "model_failures": figures.model_failures,
        },
        "latency": _latency(figures, absent),
    }


def _boxes(figures: VersionFigures, absent: dict[str, str]) -> BoxCounts:
    total = sum(figures.boxes.values())
    body: BoxCounts = {
        "total": total,
        "frames": figures.counted,
        "without": figures.without_boxes,
        "by_class": figures.boxes,
    }
    if figures.counted:
        body["per_frame"] = round(total / figures.counted, 3)
    else:
        absent["traffic.boxes.per_frame"] = "no frame has been answered since the start"
    return body


def _latency(figures: VersionFigures, absent: dict[str, str]) -> Latency:
    body: Latency = {
        "stages": {stage: _durations(timing) for stage, timing in figures.stages.items() if timing.count}
    }
    if figures.request.count:
        body["request"] = _durations(figures.request)
    else:
        absent["traffic.latency.request"] = "no predict request has been answered since the start"
    if figures.model_run.count:
        body["model_run"] = _durations(figures.model_run)
    else:
        absent["traffic.latency.model_run"] = "the model has not run since the start"
    return body


def _durations(timing: Timing) -> Durations:
    body: dict[str, Any] = {"count": timing.count, "mean_ms": round(timing.mean_ms, 3)}
    for name, share in QUANTILES.items():
        found = timing.quantile(share)
        body[name] = {
            "value_ms": round(found.value_ms, 3),
            "low_ms": round(found.low_ms, 3),
            "high_ms": round(found.high_ms, 3) if math.isfinite(found.high_ms) else None,
        }
    return cast(Durations, body)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
