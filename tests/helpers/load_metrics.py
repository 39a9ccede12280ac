"""Reads the metrics of capacity and demand of a service, and waits for their values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.helpers.service import Service

#: Longest wait for a value; the slowest average covers 15 s.
PATIENCE_S = 90.0


def fps(service: Service, kind: str, **labels: str) -> float:
    return service.metric(f"object_detection_{kind}_frames_per_second", **labels)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.5)
