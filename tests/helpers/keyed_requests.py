"""Sends HTTP requests with the keys of two clients."""

from __future__ import annotations

from typing import Any

import aiohttp

#: Keys of two clients of one service.
ANN, BOB = "dummy-key-ann", "dummy-key-bob"


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


async def ask(
    http: aiohttp.ClientSession, method: str, url: str, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Send a request; return its status, its JSON (None if it is none) and its headers.

    In names of ``headers``, an underscore stands for a hyphen.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.request(method, url, data=body, headers=named) as response:
        is_json = "json" in response.content_type
        return response.status, await response.json() if is_json else None, dict(response.headers)
