"""Tests that all URLs that the service names have the path prefix under which a proxy publishes it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from streamer.access.access_settings import parse_networks
from streamer.config.network_settings import normal_prefix
from streamer.config.settings import SettingsError, load_settings
from streamer.http.caller import ClientAddresses
from streamer.http.path_prefix import PATH_PREFIX, PathPrefix, absolute_url
from streamer.http.route_policy import ROUTES
from streamer.server.openapi import openapi_document
from streamer.server.pages import add_pages

HEADER = "X-Forwarded-Prefix"
#: Returns the document that all tests serve; to build it takes a tenth of a second.
document = functools.cache(openapi_document)


@asynccontextmanager
async def serving(root_path: str = "", trusted: str = "127.0.0.1") -> AsyncIterator[aiohttp.ClientSession]:
    """Serve the pages behind a prefix as a worker does; `/where...` and `//...` return their absolute URL."""

    async def where(request: web.Request) -> web.Response:
        return web.Response(text=absolute_url(request, f"{request.path}?{request.query_string}"))

    app = web.Application()
    prefix = app[PATH_PREFIX] = PathPrefix(normal_prefix(root_path), ClientAddresses(parse_networks(trusted)))
    add_pages(app, document())
    app.router.add_get("/{path:(where|/).*}", where)
    runner = web.AppRunner(app)
    await runner.setup()
    assert runner.server is not None
    runner.server.request_factory = prefix.remove_from_paths(runner.server.request_factory)
    server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, aiohttp.ClientSession(base, headers={"Host": "here"}) as client:
        yield client
        server.close()
    await runner.cleanup()


async def read(client: aiohttp.ClientSession, path: str | URL, prefix: str = "") -> tuple[int, str, str]:
    """Request a path and return status, body and `Location`."""
    headers = {HEADER: prefix} if prefix else {}
    async with client.get(path, headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.text(), answer.headers.get("Location", "")


@pytest.mark.parametrize(
    ("path", "root_path", "prefix", "url"),
    [
        ("/where", "", "", "http://here/where?"),
        ("/where?a=1&b=%20", "/vision", "", "http://here/vision/where?a=1&b= "),
        ("/vision/where?a=1", "/vision", "", "http://here/vision/where?a=1"),
        ("/vision/where", "/vision/", "", "http://here/vision/where?"),
        ("/a/b/where", "/a/b", "", "http://here/a/b/where?"),
        ("/where", "", "/p/q/", "http://here/p/q/where?"),
        ("/where", "/vision", "/outer, /inner", "http://here/outer/where?"),
        ("/vision/where", "/vision", "/outer/vision", "http://here/outer/vision/where?"),
        ("/where", "/vision", "no path", "http://here/vision/where?"),
        ("/where", "", '/"><script>', "http://here/where?"),
        ("/where", "", "//evil.example", "http://here/where?"),
        ("/where", "", "/a/../b", "http://here/where?"),
        ("/where", "", "/", "http://here/where?"),
    ],
)
async def test_addresses_have_the_prefix(path: str, root_path: str, prefix: str, url: str) -> None:
    async with serving(root_path) as client:
        assert (await read(client, path, prefix))[:2] == (200, url)


async def test_other_paths_are_left_alone() -> None:
    async with serving("/vision") as client:
        assert (await read(client, "/visionary/where"))[0] == 404
        assert (await read(client, "/vision/vision/where"))[0] == 404
        _, url, _ = await read(client, "/vision//evil.example/where")
        assert url.startswith("http://here/vision//evil.example")


async def test_only_trusted_proxies_state_a_prefix() -> None:
    async with serving("/vision", trusted="10.0.0.0/8") as client:
        assert (await read(client, "/where", "/evil"))[1] == "http://here/vision/where?"


async def test_the_path_without_a_slash_is_redirected() -> None:
    async with serving("/vision") as client:
        assert (await read(client, "/vision"))[::2] == (308, "/vision/")
        assert (await read(client, "/vision?model=v2"))[::2] == (308, "/vision/?model=v2")
        sent = URL("/vision?a=%0d%0aSet-Cookie:%20b&c=%26%23", encoded=True)
        assert (await read(client, sent))[::2] == (308, "/vision/?a=%0d%0aSet-Cookie:%20b&c=%26%23")
        assert (await read(client, "/vision", "/outer/vision"))[::2] == (308, "/outer/vision/")
        assert (await read(client, "/vision/"))[0] == 200
        assert (await read(client, "/"))[0] == 200


async def test_the_document_names_the_prefix_as_its_server() -> None:
    async with serving() as client:
        for prefix, server in (("", "/"), ("/vision", "/vision"), ("/other/", "/other")):
            async with client.get("/openapi.json", headers={HEADER: prefix}) as answer:
                assert (await answer.json())["servers"] == [{"url": server}]
                tag = answer.headers["ETag"]
            async with client.get("/openapi.json", headers={HEADER: "/x", "If-None-Match": tag}) as answer:
                assert answer.status == 200, "the document for another prefix is another one"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
async def test_pages_have_the_prefix_as_their_base(path: str) -> None:
    async with serving("/vision") as client, client.get(f"/vision{path}") as answer:
        assert '<base href="/vision/">' in await answer.text()
        assert "base-uri 'self'" in answer.headers["Content-Security-Policy"]
    async with serving() as client, client.get(path) as answer:
        assert "<base" not in await answer.text()
        assert "base-uri 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("text", ["vision", "//", "/a//b", "/a?b", "/a b", "/../a", "https://a.example/b"])
def test_what_is_no_path_is_refused(text: str) -> None:
    if text == "//":
        assert normal_prefix(text) == ""
        return
    with pytest.raises(SettingsError, match=r"ROOT_PATH.* is not a path; allowed are paths such as /vision"):
        load_settings(root_path=text)


def test_no_prefix_is_a_path_of_the_service_itself() -> None:
    """With `/health` as prefix, a probe of `/health` would get the page."""
    names = {"{version}": "v1", "{kind}": "whip", "{session}": "abc", "{picture}": "v1-0"}
    routes = {path for _, path in ROUTES} | {
        "/openapi.json",
        "/docs",
        "/redoc",
        "/static",
        "/data/sample.mp4",
    }
    for route in routes - {"/"}:
        path = route
        for name, value in names.items():
            path = path.replace(name, value)
        while path.strip("/"):
            with pytest.raises(SettingsError, match=r"ROOT_PATH.* is a path of the service itself"):
                load_settings(root_path=path)
            path = path.rpartition("/")[0]
    for other in ("/vision", "/apps/v1", "/v1/vision", "/healthy", "/streams", "/docs2"):
        assert load_settings(root_path=other).root_path == other
