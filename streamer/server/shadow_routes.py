"""Serves ``PUT /versions/shadow``, which changes the share of v1's frames that v2 runs, too."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from inference.ipc.shared_status import SharedStatus
from streamer.http.problem_details import Problem
from streamer.sampling.shadow import SHADOW, ShadowRuns
from streamer.server.sampling import read_share
from streamer.server.share_update import read_update, set_share
from streamer.server.versions_document import ShadowDocument


class ShadowUpdate(BaseModel):
    """What `PUT /versions/shadow` changes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    v2: float = Field(
        ge=0, le=1, allow_inf_nan=False, description="Share of v1's frames that v2 runs, too; 0: none."
    )


class ShadowRoutes:
    """Handles the route, and tells the share. All workers of the replica read the share that it writes."""

    def __init__(
        self,
        runs: ShadowRuns,
        shared_status: SharedStatus,
        body_timeout_s: float,
        control_address: str = "",
    ) -> None:
        """``control_address`` is that of the supervisor's control socket; empty without a supervisor."""
        self._runs = runs
        self._control_address = control_address
        self._shared_status = shared_status
        self._body_timeout_s = body_timeout_s

    def describe(self) -> ShadowDocument:
        """Return the share that is in effect."""
        return {"v2": read_share(self._shared_status)}

    async def update(self, request: web.Request) -> web.Response:
        """Change the share for all workers of this replica, from the next answered frame on."""
        share = (await read_update(request, ShadowUpdate, self._body_timeout_s)).v2
        if share > 0 and not self._runs.has_shadow:
            raise Problem(
                409,
                "not_loaded",
                f"No model of {SHADOW} is loaded here, so it can run no frames; load one first.",
            )
        await set_share(request, "shadow_v2", share, self._shared_status, self._control_address)
        self._runs.note_share()
        return web.json_response(self.describe(), headers={"Cache-Control": "no-store"})


def add_shadow(
    app: web.Application,
    runs: ShadowRuns,
    shared_status: SharedStatus,
    body_timeout_s: float,
    control_address: str = "",
) -> ShadowRoutes:
    """Add the route."""
    routes = ShadowRoutes(runs, shared_status, body_timeout_s, control_address)
    app.router.add_put("/versions/shadow", routes.update)
    return routes
