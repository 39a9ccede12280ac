"""Checks to which host name a request was sent, and the origin of the page that sent it.

A browser sends requests on behalf of any page. Two checks keep pages of other sites out. The check of `Host`
finds requests to a name that an attacker has pointed at our address (DNS rebinding). The check of `Origin`
finds requests of pages of other sites.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from aiohttp import hdrs, web

from streamer.access.access_settings import normal_origin

_HOSTS_KNOWN = 256
#: `Host: name`, `name:port`, `[v6]`, `[v6%zone]`, `[v6]:port`.
_HOST_HEADER = re.compile(
    r"(?:\[(?P<v6>[0-9a-f:.]+)(?:%[a-z0-9._~%-]{1,40})?\]|(?P<name>[a-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?"
)


class OriginPolicy:
    """Decides which host names the service accepts besides IP addresses, and which origins may use it."""

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        #: Caches the decision for each host: clients use few hosts, and deciding takes longer than a lookup.
        self._decisions = lru_cache(maxsize=_HOSTS_KNOWN)(self._decide_host)

    def allows_host(self, host: str | None) -> bool:
        """Return whether clients may address the service as ``host``, the value of a `Host` header.

        Any IP address is allowed, because an attacker can point only a name at somebody else's machine. Names
        without a dot, which services of one network use for each other, are allowed because nobody can
        register one in the public DNS. Requests without the header are allowed, because they do not come from
        a browser (load balancers send such probes with HTTP/1.0).
        """
        if host is None or "*" in self._hosts:
            return True
        return self._decisions(host)

    def _decide_host(self, host: str) -> bool:
        match = _HOST_HEADER.fullmatch(host.lower())
        if match is None:
            return False
        name = match["v6"] or match["name"].removesuffix(".")
        if not name:
            return False
        if "." not in name or _is_address(name) or name.endswith(".localhost") or name in self._hosts:
            return True
        return any(name.endswith(known[1:]) for known in self._hosts if known.startswith("*."))

    def allows_origin(self, request: web.Request) -> bool:
        """Return whether the page that sent a request may use the service; programs send no `Origin`."""
        origins = request.headers.getall("Origin", [])
        if not origins:
            return not _is_foreign_fetch(request)
        # Browsers send one `Origin`. Refuse two, because different parsers would use different ones.
        normal = normal_origin(origins[0]) if len(origins) == 1 else None
        if normal is None:  # also for `null`, which any page can make its browser send
            return False
        return "*" in self._origins or normal in self._origins or normal in self._own(request)

    def _own(self, request: web.Request) -> set[str]:
        """Return the origins under which this request's client reaches the service.

        A proxy that terminates TLS reports them in X-Forwarded-Proto and X-Forwarded-Host. Here, these
        headers can be trusted even from an unknown proxy, because a page cannot make a browser send them to
        another site.
        """
        schemes = {request.scheme, _first(request.headers.get("X-Forwarded-Proto", "")).lower()}
        if schemes & {"https", "wss"}:
            schemes = {"https"}
        hosts = {request.headers.get("Host", "")}
        forwarded = _first(request.headers.get("X-Forwarded-Host", ""))
        if forwarded and self.allows_host(forwarded):
            hosts.add(forwarded)
        own = {normal_origin(f"{scheme}://{host.lower()}") for scheme in schemes for host in hosts}
        return {origin for origin in own if origin is not None}


def _is_foreign_fetch(request: web.Request) -> bool:
    """Return whether a page of another site caused this request without an `Origin`.

    Images and scripts in a page cause such requests. Navigation, as when a person follows a link, does not
    count.
    """
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in ("cross-site", "same-site"):
        return False
    mode, target = request.headers.get("Sec-Fetch-Mode", ""), request.headers.get("Sec-Fetch-Dest", "")
    return not (request.method in ("GET", "HEAD") and mode == "navigate" and target == "document")


def _first(values: str) -> str:
    """Return the first value, which the proxy nearest to the client has set."""
    return values.partition(",")[0].strip()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


#: Headers of answers that a page may read, and headers that it may send, besides those that browsers always
#: allow.
_EXPOSED_HEADERS = (
    "Accept-Patch, ETag, Link, Location, Retry-After, WWW-Authenticate, X-Model-Version, X-Replica, "
    "X-Request-Id"
)
_ALLOWED_HEADERS = (
    "Authorization, Content-Type, If-Match, Last-Event-ID, X-Client-Id, X-Model-Version, X-Request-Id, "
    "traceparent, tracestate"
)
_PREFLIGHT_AGE_S = 600


def cors_headers(request: web.Request, origin_policy: OriginPolicy) -> dict[str, str]:
    """Return the headers that let a page of an allowed origin read the answer; none without `Origin`.

    `Access-Control-Allow-Credentials` is never sent, because keys are sent in a header that the page itself
    must set.
    """
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or not origin_policy.allows_origin(request):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED_HEADERS}


def preflight_headers(request: web.Request, origin_policy: OriginPolicy, methods: str) -> dict[str, str]:
    """Return the headers of the answer to a preflight request; none if the origin is not allowed."""
    headers = cors_headers(request, origin_policy)
    if headers:
        headers |= {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            "Access-Control-Max-Age": str(_PREFLIGHT_AGE_S),
        }
    return headers


def is_preflight(request: web.Request) -> bool:
    """Return whether the request is a CORS preflight request of a browser."""
    return request.method == hdrs.METH_OPTIONS and "Access-Control-Request-Method" in request.headers


def vary_by_origin(response: web.StreamResponse) -> None:
    """Add Origin to the Vary header, so that caches do not serve one origin's answer to another origin."""
    known = response.headers.get(hdrs.VARY)
    if known is None:
        response.headers[hdrs.VARY] = "Origin"
    elif "origin" not in {name.strip().lower() for name in known.split(",")}:
        response.headers[hdrs.VARY] = f"{known}, Origin".lstrip(", ")
