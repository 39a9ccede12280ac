"""Posts to the predict routes, and checks the form of each answer."""

from __future__ import annotations

import io
import json
from typing import Any

import aiohttp


async def post(
    session: aiohttp.ClientSession, url: str, data: Any, **headers: str
) -> tuple[int, dict[str, Any]]:
    """Send a POST, check the form of the answer, and return its status and parsed body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    # Wrap bytes in a file, because aiohttp warns about large bytes objects.
    body = io.BytesIO(data) if isinstance(data, bytes) else data
    async with session.post(url, data=body, headers=named) as answer:
        answered: dict[str, Any] = json.loads(await answer.read())
        kind = "application/json" if answer.status == 200 else "application/problem+json"
        assert answer.content_type == kind
        if answer.status != 200:
            assert {"type", "title", "status", "detail", "request_id"} <= set(answered)
            assert answered["status"] == answer.status
            assert answered["detail"].endswith(".")
            assert answer.headers["X-Request-Id"] == answered["request_id"]
        return answer.status, answered
