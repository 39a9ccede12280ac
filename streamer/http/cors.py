"""CORS headers: tell browsers which origins may read answers and which requests their pages may send."""

from __future__ import annotations

from aiohttp import hdrs, web

from streamer.http.sites import Sites

_EXPOSED = "Location, Link, ETag, Retry-After, X-Request-Id"
_TAKEN = "Authorization, Content-Type, If-Match, X-Request-Id, X-Model-Version"
_PREFLIGHT_AGE_S = 600


def cors_headers(request: web.Request, sites: Sites) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read the answer; none without `Origin`.

    `Access-Control-Allow-Credentials` is never sent, because keys are sent in a header that the page itself
    must set.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or not sites.allows_origin(request):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED}


def preflight_headers(request: web.Request, sites: Sites, methods: str) -> dict[str, str]:
    """Return the headers of the answer to a preflight request."""
    headers = cors_headers(request, sites)
    if headers:
        headers |= {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": _TAKEN,
            "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
        }
    return headers


def is_preflight(request: web.Request) -> bool:
    """Whether the request is a CORS preflight request of a browser."""
    return request.method == hdrs.METH_OPTIONS and "Access-Control-Request-Method" in request.headers


def vary_by_origin(response: web.StreamResponse) -> None:
    """Add Origin to the Vary header, so that caches do not serve one origin's answer to another origin."""
    known = response.headers.get(hdrs.VARY)
    if known is None:
        response.headers[hdrs.VARY] = "Origin"
    elif "origin" not in {name.strip().lower() for name in known.split(",")}:
        response.headers[hdrs.VARY] = f"{known}, Origin".lstrip(", ")
