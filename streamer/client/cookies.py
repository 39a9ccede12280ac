"""Cookies of a client's connections: a balancer's cookie brings it back to the replica where it started."""

from __future__ import annotations

import aiohttp


def cookies() -> aiohttp.CookieJar:
    """Return a jar for one server; needs a running event loop."""
    # aiohttp would leave out those of a server that is addressed by its IP.
    return aiohttp.CookieJar(unsafe=True)
