"""Tests the pages served from memory: types, ETags, ranges, policies, and that no other file is served."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streamer.http.problem_details import problem_middleware
from streamer.server.openapi import openapi_document
from streamer.server.pages import add_pages, load_assets

Client = TestClient[web.Request, web.Application]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    (folder / "js").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>demo</title>")
    (folder / "js" / "app.js").write_text("export const x = 1;")
    (folder / "clip.mp4").write_bytes(bytes(range(256)))
    (folder / ".secret.js").write_text("no")
    (folder / "__init__.py").write_text("no")
    (folder / "app.js.map").write_text("no")
    return folder


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    sample = tmp_path / "data" / "sample.mp4"
    sample.parent.mkdir()
    sample.write_bytes(bytes(range(100)))
    (sample.parent / "other.mp4").write_bytes(b"not for everybody")
    (sample.parent / "make_sample.py").write_text("no")
    return sample


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document()


@pytest.fixture
async def client(document: dict[str, Any], folder: Path, sample: Path) -> AsyncIterator[Client]:
    app = web.Application(middlewares=[problem_middleware])
    add_pages(app, document, folder, sample)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/js/app.js", "text/javascript; charset=utf-8"),
        ("/static/clip.mp4", "video/mp4"),
        ("/data/sample.mp4", "video/mp4"),
        ("/favicon.ico", "image/svg+xml"),
        ("/openapi.json", "application/json"),
        ("/docs", "text/html; charset=utf-8"),
        ("/docs-init.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui.css", "text/css; charset=utf-8"),
        ("/docs/swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        ("/redoc", "text/html; charset=utf-8"),
        ("/docs/redoc.standalone.js", "text/javascript; charset=utf-8"),
    ],
)
async def test_files_have_their_type_and_are_not_guessed(
    client: Client, path: str, content_type: str
) -> None:
    response = await client.get(path)
    assert response.status == 200
    assert response.headers["Content-Type"] == content_type
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Server"] == "streamer"
    assert await response.read()
    head = await client.head(path)
    assert (head.status, head.headers["Content-Length"]) == (200, response.headers["Content-Length"])


@pytest.mark.parametrize(
    "path",
    [
        "/static/.secret.js",
        "/static/__init__.py",
        "/static/app.js.map",
        "/static/../pages.py",
        "/static/%2e%2e/pages.py",
        "/static/",
        "/data/",
        "/data/other.mp4",
        "/data/make_sample.py",
        "/docs/swagger-ui-bundle.js.map",
        "/docs/apps.py",
    ],
)
async def test_nothing_else_is_served(client: Client, path: str) -> None:
    assert (await client.get(path)).status == 404


async def test_a_file_that_the_client_has_is_not_sent_again(client: Client) -> None:
    first = await client.get("/static/js/app.js")
    again = await client.get("/static/js/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, await again.read()) == (304, b"")
    other = await client.get("/static/js/app.js", headers={"If-None-Match": '"other"'})
    assert other.status == 200


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-9", 206, bytes(range(10))),
        ("bytes=250-", 206, bytes(range(250, 256))),
        ("bytes=-3", 206, bytes(range(253, 256))),
        ("bytes=250-999", 206, bytes(range(250, 256))),
        ("bytes=0-1,5-6", 200, bytes(range(256))),
        ("furlongs=1-2", 200, bytes(range(256))),
    ],
)
async def test_players_may_ask_for_a_part(client: Client, wanted: str, status: int, part: bytes) -> None:
    response = await client.get("/static/clip.mp4", headers={"Range": wanted})
    assert (response.status, await response.read()) == (status, part)
    if status == 206:
        assert response.headers["Content-Range"] == f"bytes {part[0]}-{part[-1]}/256"


async def test_a_part_behind_the_end_is_a_problem_that_says_the_size(client: Client) -> None:
    response = await client.get("/static/clip.mp4", headers={"Range": "bytes=256-"})
    assert (response.status, response.content_type) == (416, "application/problem+json")
    assert response.headers["Content-Range"] == "bytes */256"


async def test_only_the_documentation_may_style_inline(client: Client) -> None:
    policies = {
        path: (await client.get(path)).headers["Content-Security-Policy"] for path in ("/", "/docs", "/redoc")
    }
    for policy in policies.values():
        assert "default-src 'none'; script-src 'self';" in policy
        assert "frame-ancestors 'none'; base-uri 'none'; form-action 'none'" in policy
        assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policies["/"]
    assert "style-src 'self' 'unsafe-inline'" in policies["/docs"]
    assert "worker-src 'self' blob:" in policies["/redoc"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "vision.example.test", "[::1]:8000"])
async def test_the_page_may_open_sockets_to_its_own_host_only(client: Client, host: str) -> None:
    policy = (await client.get("/", headers={"Host": host})).headers["Content-Security-Policy"]
    assert f"; connect-src 'self' ws://{host} wss://{host};" in policy


@pytest.mark.parametrize("host", ["a;script-src *", "a b", "*", "*.test", "a'", "a:b", "a/b", "x:123456", ""])
async def test_an_odd_host_stays_out_of_the_policy(client: Client, host: str) -> None:
    response = await client.get("/", headers={"Host": host})
    if response.status == 200:
        assert "; connect-src 'self'; " in response.headers["Content-Security-Policy"]


async def test_pages_name_only_files_of_this_server_and_no_inline_script(client: Client) -> None:
    for path in ("/docs", "/redoc"):
        html = await (await client.get(path)).text()
        assert not re.search(r"<script(?![^>]*\ssrc=)", html)
        sources = re.findall(r'(?:src|href|spec-url)="([^"]+)"', html)
        assert sources
        for source in sources:
            assert (await client.get(f"/{source}")).status == 200, source


async def test_redoc_loads_nothing_from_another_host(client: Client) -> None:
    bundle = await (await client.get("/docs/redoc.standalone.js")).text()
    assert len(bundle) > 500_000
    # All other URLs in the bundle are links and names of schemas.
    assert re.findall(r'https?://(?:cdn|fonts)[^"]*|\bsrc\W{1,4}https?://[^"]*', bundle) == []


async def test_pages_are_for_reading_only(client: Client) -> None:
    assert (await client.post("/")).status == 405


def test_without_a_demo_page_the_documentation_is_there(tmp_path: Path) -> None:
    assets = load_assets({"openapi": "3.1.0"}, tmp_path / "absent", tmp_path / "absent.mp4")
    assert "/" not in assets
    assert "/data/sample.mp4" not in assets
    assert "/docs" in assets


def test_without_the_viewers_there_is_a_warning_and_no_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamer.server.pages._VIEWERS_PACKAGE", "no_such_package_here")
    assets = load_assets({}, tmp_path, tmp_path / "absent.mp4")
    assert set(assets) == {"/openapi.json", "/favicon.ico"}
    assert "no_such_package_here" in caplog.text


def test_the_demo_page_names_only_files_that_are_served() -> None:
    assets = load_assets({})
    html = assets["/"].body.decode()
    assert " style=" not in html
    assert not re.search(r"<script(?![^>]*\ssrc=)|\son[a-z]+=", html)
    sources = [source for source in re.findall(r'(?:src|href)="([^"#]+)"', html) if source != "./"]
    assert len(sources) >= 4
    for source in sources:
        assert f"/{source}" in assets, source
    for path, asset in assets.items():
        if path.startswith("/static/js/"):
            folder = path.rpartition("/")[0]
            for name in re.findall(r"from '\./([^']+)'", asset.body.decode()):
                assert f"{folder}/{name}" in assets, f"{path} imports {name}"
