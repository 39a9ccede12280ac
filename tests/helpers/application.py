"""Builds the application of a worker as in production, but without its process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from aiohttp import web

from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import load_settings
from streamer.server.app import make_app
from streamer.server.resources import Resources


def make_routes(
    *, shared_status: SharedStatus | None = None, number: int = 0, **overrides: Any
) -> list[web.AbstractRoute]:
    """Return every route that worker ``number`` serves with these settings."""

    async def build() -> list[web.AbstractRoute]:
        page = SharedDocument()
        app, _ = make_app(
            Resources(
                number=number,
                settings=load_settings(**overrides),
                metrics=WorkerMetrics(),
                shared_status=SharedStatus() if shared_status is None else shared_status,
                drift_page=page,
                engine_document=page,
                sampling_address="",
                metrics_dir=Path(os.devnull),
            )
        )
        return list(app.router.routes())

    return asyncio.run(build())
