"""Addresses of sessions as the client sees them, behind proxies that say so."""

from __future__ import annotations

import re

from aiohttp import web

_HOST = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]{1,100}){1,10}")


def absolute_url(request: web.Request, path: str) -> str:
    """Return ``path`` with the scheme, host and prefix under which the client reached us.

    Proxies name them in X-Forwarded-Proto, -Host and -Prefix. A client that makes them up misleads nobody
    but itself: the address goes back to it alone.
    """
    headers = request.headers
    scheme = _first(headers.get("X-Forwarded-Proto", "")).lower()
    host = _first(headers.get("X-Forwarded-Host", ""))
    prefix = _first(headers.get("X-Forwarded-Prefix", "")).rstrip("/")
    if scheme not in ("http", "https"):
        scheme = request.scheme
    if not _HOST.fullmatch(host):
        host = request.host
    if not _PREFIX.fullmatch(prefix):
        prefix = ""
    return f"{scheme}://{host}{prefix}{path}"


def _first(values: str) -> str:
    """Of a chain of proxies the first is the one that the client spoke to."""
    return values.partition(",")[0].strip()
