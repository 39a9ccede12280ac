"""Addresses as the client sees them, behind proxies that say so, and what other sites' pages may do."""

from __future__ import annotations

import re

from aiohttp import web

from streamer.auth import Gate

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


def cors_headers(request: web.Request, gate: Gate) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read the answer; none for programs."""
    origin = request.headers.get("Origin")
    if origin is None or not gate.allows_origin(request):
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "Location, Link, ETag, Retry-After, X-Request-Id",
        "Vary": "Origin",
    }


def preflight_headers(request: web.Request, gate: Gate, methods: str) -> dict[str, str]:
    """Return what a browser asks before it sends a request of another site's page."""
    headers = cors_headers(request, gate)
    if headers:
        headers |= {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, X-Request-Id",
            "Access-Control-Max-Age": "600",
        }
    return headers
