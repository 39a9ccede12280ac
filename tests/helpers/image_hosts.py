"""Serves images on this machine, and fetches them as the service does."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamer.config.image_hosts import parse_image_hosts
from streamer.core.byte_budget import ByteBudget
from streamer.http.problem_details import Problem
from streamer.imaging.image_header import Limits
from streamer.predict.image_url import ImageFetcher, ImageUrl

IMAGE = b"\xff\xd8\xff" + bytes(2000)
LIMITS = Limits(image_bytes=5000, total_bytes=8000, max_images=3)


def is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Treat 127.0.0.1 as the only public address."""
    return str(address) == "127.0.0.1"


@asynccontextmanager
async def server(routes: dict[str, Any]) -> AsyncIterator[TestServer]:
    """Serve the response or the handler that ``routes`` has for a path, and `IMAGE` on all other paths."""

    async def answer(request: web.Request) -> web.StreamResponse:
        made = routes.get(request.path, web.Response(body=IMAGE))
        response: web.StreamResponse = await made(request) if callable(made) else made
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    running = TestServer(app, host="127.0.0.1")
    async with running:
        yield running


async def fetch(
    urls: str | Sequence[str], rules: str = "*", allowed: Any = is_own, budget: ByteBudget | None = None
) -> list[bytes | Problem]:
    """Fetch the images at the URLs, or their problems; check that the budget is charged for them."""
    fetcher = ImageFetcher(parse_image_hosts(rules), allowed)
    lifetime = fetcher.lifetime(web.Application())
    await anext(lifetime)
    named = [ImageUrl(f"images[{n}]", url) for n, url in enumerate([urls] if isinstance(urls, str) else urls)]
    try:
        with (budget or ByteBudget(1 << 20)).hold("client", "body") as holding:
            found = await fetcher.fill_in(named, "client", LIMITS, holding)
            assert holding.held_bytes >= found.fetched_bytes == sum(map(len, found.images))
            assert all(not found.images[number] for number in found.failed)
            return [found.failed.get(number, bytes(each)) for number, each in enumerate(found.images)]
    finally:
        with pytest.raises(StopAsyncIteration):
            await anext(lifetime)


async def refused(*arguments: Any, **options: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await fetch(*arguments, **options)
    return caught.value
