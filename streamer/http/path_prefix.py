"""Finds the path under which a proxy publishes the service, such as `/vision`, for URLs in answers.

The prefix is `X-Forwarded-Prefix` if a proxy in `TRUSTED_PROXIES` sends it, else `ROOT_PATH`. A proxy may
remove the prefix from the paths that it forwards. If it does not, the service removes `ROOT_PATH` itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web
from yarl import URL

from streamer.config.network_settings import normal_prefix
from streamer.http.caller import ClientAddresses

PREFIX_HEADER = "X-Forwarded-Prefix"
_HOST = re.compile(r"[A-Za-z0-9.\-_:\[\]]{1,255}")
#: Set on a request for `ROOT_PATH` without a slash at its end. On a page at that path, relative links would
#: lead to wrong addresses.
LACKS_SLASH = web.RequestKey("lacks_slash", bool)


class PathPrefix:
    """Finds the prefix of each request. ``root_path`` is `ROOT_PATH` in its normal form."""

    def __init__(self, root_path: str, addresses: ClientAddresses) -> None:
        self._root_path = root_path
        self._addresses = addresses

    def of(self, request: web.Request) -> str:
        """Return the prefix under which the client reaches the service; empty if there is none."""
        stated = request.headers.get(PREFIX_HEADER)
        if stated is not None and self._addresses.arrived_from_proxy(request):
            try:
                # With several proxies, the first value is from the proxy that the client connected to.
                return normal_prefix(stated.partition(",")[0])
            except ValueError:
                return self._root_path
        return self._root_path

    def remove_from_paths(
        self, make_request: Callable[..., web.BaseRequest]
    ) -> Callable[..., web.BaseRequest]:
        """Wrap aiohttp's factory of requests so that it removes `ROOT_PATH` from their paths."""
        root = self._root_path
        if not root:
            return make_request

        def make(message: Any, *arguments: Any) -> web.BaseRequest:
            rest = message.path.removeprefix(root)
            if rest == message.path or rest[:1] not in ("/", "?", ""):  # not below the root
                return make_request(message, *arguments)
            lacks_slash = rest[:1] != "/"
            path = f"/{rest}" if lacks_slash else rest
            url = URL.build(
                path=path.partition("?")[0], query_string=message.url.raw_query_string, encoded=True
            )
            request = make_request(message._replace(path=path, url=url), *arguments)
            if lacks_slash:
                request[LACKS_SLASH] = True
            return request

        return make


PATH_PREFIX = web.AppKey("path_prefix", PathPrefix)


def prefix_of(request: web.Request) -> str:
    """Return the prefix under which the client reaches the service; empty if there is none."""
    prefix = request.app.get(PATH_PREFIX)
    return prefix.of(request) if prefix is not None else ""


def absolute_url(request: web.Request, path: str) -> str:
    """Return ``path`` with the scheme, host and prefix under which the client reached us.

    Proxies name scheme and host in X-Forwarded-Proto and X-Forwarded-Host. A client that forges these headers
    misleads only itself, because only that client gets the URL.
    """
    host = _first(request.headers.get("X-Forwarded-Host", ""))
    if not _HOST.fullmatch(host):
        host = request.host
    return f"{scheme_of(request)}://{host}{prefix_of(request)}{path}"


def scheme_of(request: web.Request) -> str:
    """Return the scheme with which the client reached us, `http` or `https`: what a proxy states, or ours."""
    scheme = _first(request.headers.get("X-Forwarded-Proto", "")).lower()
    return scheme if scheme in ("http", "https") else request.scheme


def _first(values: str) -> str:
    """Return the first value of a list, which the proxy that the client connected to has set."""
    return values.partition(",")[0].strip()
