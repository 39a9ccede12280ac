"""Serves ``/drift/status``, ``/drift/report`` and ``/reference/update``.

The sampling process does the work; the handlers pass requests to it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from aiohttp import web

from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.access.identity import Scope
from streamer.drift.status_document import DriftStatus, DriftStatusDocument
from streamer.http.body import BodyReader, hold_body, media_type
from streamer.http.caller import hide_in_drift_status, identity_of
from streamer.http.paced_response import large_answer
from streamer.http.problem_details import Problem
from streamer.sampling.process_handle import SamplingProcessUnavailable, SamplingStatus, call

MAX_UPLOAD_BYTES = 16 << 20
#: Evidently may have to wait for another run before it starts this one, so a report may take this long.
REPORT_TIMEOUT_S = 400.0
UPDATE_TIMEOUT_S = 300.0
BODY_TIMEOUT_S = 60.0
#: Evidently's page contains scripts. The sandbox makes the browser run them in an origin of their own.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class DriftRoutes:
    """Handles the drift routes. ``sampling_address`` is empty when sampling is off."""

    def __init__(self, page: SharedDocument, shared_status: SharedStatus, sampling_address: str) -> None:
        self._page = page
        self._shared_status = shared_status
        self._address = sampling_address

    async def status(self, request: web.Request) -> web.Response:
        """Answer the last published drift status and the state of the sampling process, always with 200.

        Only administrators get the groups of streams.
        """
        text = self._page.read()
        published = json.loads(text) if text else {"status": self._initial_status().name.lower()}
        body = cast("DriftStatusDocument", published)
        body["observer"] = SamplingStatus(int(self._shared_status.read("sampling"))).name.lower()
        if not identity_of(request).may(Scope.ADMIN):
            body = hide_in_drift_status(body)
        return web.json_response(body, headers={"Cache-Control": "no-store"})

    def _initial_status(self) -> DriftStatus:
        starting = self._shared_status.read("sampling") == SamplingStatus.STARTING
        return DriftStatus.INSUFFICIENT_DATA if starting else DriftStatus.DISABLED

    async def report(self, request: web.Request) -> web.Response:
        """Answer with Evidently's page about one group."""
        group = request.query.get("group", "")
        response = await self._call({"method": "report", "group": group}, REPORT_TIMEOUT_S)
        return large_answer(
            request,
            await asyncio.to_thread(response.encode),
            "text/html; charset=utf-8",
            {"Content-Security-Policy": _REPORT_POLICY},
        )

    async def update(self, request: web.Request) -> web.Response:
        """Replace the reference, and answer what was learned."""
        # A browser sends this type for a page of another origin only after a preflight request, whose answer
        # permits only allowed origins.
        if media_type(request) != "application/json":
            raise Problem.unsupported_media("Content-Type must be application/json.")
        flags = {name: _flag(request, name) for name in ("dry_run", "force")}
        with hold_body(request) as holding:
            reader = BodyReader(request, holding, most_bytes=MAX_UPLOAD_BYTES, limit_s=BODY_TIMEOUT_S)
            body = await reader.read_all()
            response = await self._call({"method": "update", "body": body, **flags}, UPDATE_TIMEOUT_S)
        return web.json_response(response, headers={"Cache-Control": "no-store"})

    async def _call(self, request: dict[str, Any], timeout_s: float) -> Any:
        if not self._address:
            raise Problem(409, "off", "SAMPLING is off here, and with it drift.")
        try:
            response = await call(self._address, request, timeout_s)
        except SamplingProcessUnavailable as error:
            raise Problem.unavailable(f"{str(error).capitalize()}; try again.", retry_after_s=5) from error
        if "error" in response:
            failure = response["error"]
            raise Problem(failure["status"], failure["code"], failure["detail"])
        return response["result"]


def add_drift(app: web.Application, routes: DriftRoutes) -> None:
    """Add the three routes."""
    app.router.add_get("/drift/status", routes.status)
    app.router.add_get("/drift/report", routes.report, allow_head=False)
    app.router.add_post("/reference/update", routes.update)


def _flag(request: web.Request, name: str) -> bool:
    text = request.query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise Problem.invalid_parameter(name, text, "true, false, 1, 0")
    return text in ("true", "1")
