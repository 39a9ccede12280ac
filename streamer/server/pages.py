"""Serves the demo page, the API documentation and their files from memory.

The files are read once at start; a request never names a path on the disk.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from streamer.assets import SAMPLE_FILE, STATIC_DIR
from streamer.http.http_connection import SERVER_NAME
from streamer.http.paced_response import PacedResponse
from streamer.http.path_prefix import LACKS_SLASH, prefix_of
from streamer.http.problem_details import Problem, request_id

log = logging.getLogger("streamer.pages")

#: Types of files that are served; other files in the static folder are not.
_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}

_CSP_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; worker-src 'self'; font-src 'self'; manifest-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
#: Matches the hosts that may be written into a policy. Other values of a Host header are not written there.
_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
#: Policy of the documentation viewers. Both create styles at run time and contain icons as data URLs. ReDoc
#: searches in a web worker that it creates from a blob.
_CSP_DOCS = (
    _CSP_PAGE.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    .replace("img-src 'self'", "img-src 'self' data:")
    .replace("worker-src 'self'", "worker-src 'self' blob:")
)
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # This value reveals neither the programming language nor versions.
    hdrs.SERVER: SERVER_NAME,
}

#: Maximum number of path prefixes for which variants of a file are kept. Only trusted proxies state prefixes.
_PREFIXES_KNOWN = 8
#: The package that contains both viewers. Its folder is located without importing it.
_VIEWERS_PACKAGE = "aiohttp_swagger3"
_VIEWER_FILES = {
    "/docs/swagger-ui.css": "swagger_ui/swagger-ui.css",
    "/docs/swagger-ui-bundle.js": "swagger_ui/swagger-ui-bundle.js",
    "/docs/redoc.standalone.js": "redoc_ui/redoc.standalone.js",
}
#: ReDoc would load its maker's logo from this URL on another host. The URL is replaced in its script; ReDoc
#: shows no logo if it cannot load one.
_REDOC_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_DOCS_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API · real-time-vision-api</title>
<link rel="icon" href="favicon.ico">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs-init.js"></script>
</body>
</html>
"""
_DOCS_INIT_JS = """"use strict";
window.SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // The default validator badge would send this address to another server.
  validatorUrl: null,
});
"""
_REDOC_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>API reference · real-time-vision-api</title>
<link rel="icon" href="favicon.ico">
</head>
<body>
<redoc spec-url="openapi.json"></redoc>
<script src="docs/redoc.standalone.js"></script>
</body>
</html>
"""
#: Icon that is used if the static folder contains none: a box in a frame.
_FAVICON_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="6" fill="#12161c"/>'
    '<rect x="8" y="8" width="16" height="16" fill="none" stroke="#3ddc84" stroke-width="3"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Asset:
    """Holds one file that is served, and the values of its response headers."""

    body: bytes
    content_type: str
    #: Content-Security-Policy of a page; None for other files.
    csp: str | None
    etag: str
    #: The OpenAPI document; None for other files.
    document: dict[str, Any] | None = None

    @classmethod
    def make(cls, body: bytes, content_type: str, csp: str | None = None) -> Asset:
        """Return the asset with its entity tag."""
        return cls(body, content_type, csp, hashlib.sha256(body).hexdigest()[:32])

    @classmethod
    def make_document(cls, document: dict[str, Any]) -> Asset:
        """Return the OpenAPI document as an asset."""
        made = cls.make(json.dumps(document).encode(), _CONTENT_TYPES[".json"])
        return replace(made, document=document)

    def below(self, prefix: str) -> Asset:
        """Return the file for clients that reach the service under a path prefix, such as `/vision`.

        The prefix becomes the base of a page, so that relative URLs are right even if the page was opened
        without the slash at the end of the prefix. It becomes the server in the OpenAPI document.
        """
        if self.document is not None:
            return Asset.make_document(self.document | {"servers": [{"url": prefix}]})
        if self.csp is None:
            return self
        body = self.body.replace(b"<head>", f'<head>\n<base href="{prefix}/">'.encode(), 1)
        return Asset.make(body, self.content_type, self.csp.replace("base-uri 'none'", "base-uri 'self'"))

    def respond(self, request: web.Request) -> web.Response:
        """Return the file, or 304 if the client has it; or a range of it, which video players request."""
        headers: dict[str, str] = {hdrs.CACHE_CONTROL: "no-cache", hdrs.ACCEPT_RANGES: "bytes"}
        if self.csp is not None:
            headers["Content-Security-Policy"] = _with_own_sockets(self.csp, request.host)
        known = request.if_none_match or ()
        if any(tag.value in (self.etag, "*") for tag in known):
            response = web.Response(status=304, headers=headers)
        else:
            response = self._part(request, headers)
        response.etag = self.etag
        return response

    def _part(self, request: web.Request, headers: dict[str, str]) -> web.Response:
        size = len(self.body)
        headers[hdrs.CONTENT_TYPE] = self.content_type
        try:
            wanted = request.http_range
        except ValueError:  # if the range is invalid or there are several, the whole file is a valid answer
            wanted = slice(None)
        if wanted.start is None and wanted.stop is None:
            return PacedResponse(body=self.body, headers=headers)
        start, stop, _ = wanted.indices(size)
        if start >= stop:
            problem = Problem(416, "range_not_satisfiable", f"The file has {size} bytes.")
            response = problem.response(request_id(request))
            response.headers[hdrs.CONTENT_RANGE] = f"bytes */{size}"
            return response
        headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{stop - 1}/{size}"
        return PacedResponse(status=206, body=self.body[start:stop], headers=headers)


def _with_own_sockets(csp: str, host: str) -> str:
    """Add this server's WebSockets to the policy; Safari before 16 does not include them in 'self'."""
    if not _HOST.fullmatch(host):
        return csp
    return csp.replace("connect-src 'self'", f"connect-src 'self' ws://{host} wss://{host}")


def add_pages(
    app: web.Application,
    document: dict[str, Any],
    static_dir: Path = STATIC_DIR,
    sample: Path = SAMPLE_FILE,
    *,
    data: Mapping[str, Handler] | None = None,
) -> None:
    """Add the routes of all pages, and security headers to every answer of ``app``.

    ``document`` is the OpenAPI document. ``data`` has the handlers of routes that browsers see as a page and
    programs as JSON, by path. This reads all files, a few megabytes. Raises OSError if a file
    cannot be read.
    """
    data = data or {}
    assets = load_assets(document, static_dir, sample)
    for path, asset in assets.items():
        page = _handler(asset)
        app.router.add_get(path, _page_or_data(page, data[path]) if path in data else page)
    for path in data.keys() - assets.keys():
        app.router.add_get(path, data[path])
    app.on_response_prepare.append(_add_security_headers)


def load_assets(
    document: dict[str, Any], static_dir: Path = STATIC_DIR, sample: Path = SAMPLE_FILE
) -> dict[str, Asset]:
    """Return the assets by their URL paths."""
    assets = {
        "/openapi.json": Asset.make_document(document),
        "/favicon.ico": Asset.make(_FAVICON_SVG.encode(), _CONTENT_TYPES[".svg"]),
    }
    assets.update(_load_static(static_dir))
    if sample.is_file():
        # Only this file is served, because the other files in its folder are not public.
        assets["/data/sample.mp4"] = Asset.make(sample.read_bytes(), _CONTENT_TYPES[".mp4"])
    viewers = dict(_load_viewers())
    if viewers:
        assets.update(viewers)
        assets["/docs"] = Asset.make(_DOCS_HTML.encode(), _CONTENT_TYPES[".html"], _CSP_DOCS)
        assets["/docs-init.js"] = Asset.make(_DOCS_INIT_JS.encode(), _CONTENT_TYPES[".js"])
        assets["/redoc"] = Asset.make(_REDOC_HTML.encode(), _CONTENT_TYPES[".html"], _CSP_DOCS)
    return assets


def _load_static(folder: Path) -> Iterator[tuple[str, Asset]]:
    """Yield the files of the demo page and of the versions page below /static.

    The pages are also yielded under their own paths, and the icon as the favicon.
    """
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        content_type = _CONTENT_TYPES.get(path.suffix.lower())
        if content_type is None or not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        csp = _CSP_PAGE if path.suffix == ".html" else None
        asset = Asset.make(path.read_bytes(), content_type, csp)
        if relative.as_posix() == "index.html":
            yield "/", asset
        elif relative.as_posix() == "favicon.ico":
            yield "/favicon.ico", asset
        elif relative.as_posix() == "versions.html":
            yield "/versions", asset
        yield f"/static/{relative.as_posix()}", asset


def _load_viewers() -> Iterator[tuple[str, Asset]]:
    """Yield the files of the documentation viewers; none if their package is not installed."""
    spec = importlib.util.find_spec(_VIEWERS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        log.warning("package %s is not installed: no /docs and /redoc", _VIEWERS_PACKAGE)
        return
    folder = Path(spec.submodule_search_locations[0])
    for path, name in _VIEWER_FILES.items():
        body = (folder / name).read_bytes().replace(_REDOC_LOGO, b"data:,")
        yield path, Asset.make(body, _CONTENT_TYPES[Path(name).suffix])


def _handler(asset: Asset) -> Any:
    below = lru_cache(maxsize=_PREFIXES_KNOWN)(asset.below)

    async def serve(request: web.Request) -> web.Response:
        prefix = prefix_of(request)
        if request.get(LACKS_SLASH):
            # The relative URLs in the page would be wrong without the slash, so the client is redirected.
            # The query is passed on undecoded, because a decoded one could contain line breaks, which are not
            # allowed in a header.
            sent = request.rel_url.raw_query_string
            query = f"?{sent}" if sent else ""
            return web.Response(status=308, headers={hdrs.LOCATION: f"{prefix}/{query}"})
        return (below(prefix) if prefix else asset).respond(request)

    return serve


def _page_or_data(page: Handler, data: Handler) -> Handler:
    async def serve(request: web.Request) -> web.StreamResponse:
        if not _wants_page(request.headers.get(hdrs.ACCEPT, "")):
            return await data(request)
        response = await page(request)
        response.headers[hdrs.VARY] = hdrs.ACCEPT
        return response

    return serve


def _wants_page(accept: str) -> bool:
    """Return whether an ``Accept`` header names HTML and not JSON, as browsers do for addresses."""
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return "text/html" in ranges and "application/json" not in ranges


async def _add_security_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_SECURITY_HEADERS)
