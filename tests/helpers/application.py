"""Builds the application of a worker as in production, but without its process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from aiohttp import web

from inference.ipc.shared_status import SharedStatus
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import load_settings
from streamer.drift.shared_document import SharedDocument
from streamer.server.app import Resources, make_app


def make_routes(**overrides: Any) -> list[web.AbstractRoute]:
    """Return every route that a worker serves with these settings."""

    async def build() -> list[web.AbstractRoute]:
        shared_status, page = SharedStatus(), SharedDocument()
        app, _ = make_app(
            Resources(
                number=0,
                settings=load_settings(**overrides),
                metrics=WorkerMetrics(),
                shared_status=shared_status,
                drift_page=page,
                inference_address="unused",
                sampling_address="",
                metrics_dir=Path(os.devnull),
            )
        )
        return list(app.router.routes())

    return asyncio.run(build())
