"""Divides clients between versions, and serves ``PUT /versions/split``, which changes the shares."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from inference.ipc.shared_status import SharedStatus
from streamer.accounting.ledger import VERSIONS
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import Settings
from streamer.http.problem_details import Problem
from streamer.http.version_split import SPLIT, SPLIT_VERSION, VersionSplit
from streamer.scheduling.dispatcher import Dispatcher
from streamer.server.share_update import read_update, set_share
from streamer.server.versions_document import SplitDocument

_PATH = "/versions/split"


class SplitUpdate(BaseModel):
    """What `PUT /versions/split` changes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    v2: float = Field(
        ge=0, le=1, allow_inf_nan=False, description="Share of the clients that v2 serves; the rest get v1."
    )


class SplitRoutes:
    """Handles the route, and tells the shares. All workers of the replica read the share that it writes."""

    def __init__(
        self,
        split: VersionSplit,
        shared_status: SharedStatus,
        body_timeout_s: float,
        control_address: str = "",
    ) -> None:
        """``control_address`` is that of the supervisor's control socket; empty without a supervisor."""
        self._split = split
        self._control_address = control_address
        self._shared_status = shared_status
        self._body_timeout_s = body_timeout_s

    def describe(self) -> SplitDocument:
        """Return the shares that are in effect."""
        return {"v2": self._split.weight}

    async def update(self, request: web.Request) -> web.Response:
        """Change the shares for all workers of this replica; requests that arrive from now on have them."""
        share = (await read_update(request, SplitUpdate, self._body_timeout_s)).v2
        if share > 0 and not self._split.has_both:
            raise Problem(
                409,
                "not_loaded",
                f"No model of {SPLIT_VERSION} is loaded here, so v1 serves everybody; load one first.",
            )
        await set_share(request, "split_v2", share, self._shared_status, self._control_address)
        return web.json_response(self.describe(), headers={"Cache-Control": "no-store"})


def add_split(
    app: web.Application,
    settings: Settings,
    shared_status: SharedStatus,
    control_address: str,
    dispatcher: Dispatcher,
    metrics: WorkerMetrics,
) -> SplitRoutes:
    """Let ``app`` choose versions and name them in its answers, and add the route."""
    app[SPLIT] = split = VersionSplit(
        lambda: shared_status.read("split_v2"),
        dispatcher.queues.__contains__,
        VERSIONS,
        metrics.version_chosen,
        settings.split_salt,
    )
    app.on_response_prepare.append(split.name_version)
    routes = SplitRoutes(split, shared_status, settings.body_timeout_s, control_address)
    app.router.add_put(_PATH, routes.update)
    return routes
