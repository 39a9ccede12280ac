"""Tests the service behind a real nginx that serves it under a path, with `HOST=::` (IPv4 and IPv6)."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.deploy.proxies import SAMPLES, BalancingProxy
from tests.helpers.ports import free_port
from tests.helpers.service import Service
from tests.helpers.webrtc_client import WebrtcClient
from tests.unit.images import encode, scene

SAMPLE = (SAMPLES / "nginx-path.conf").read_text()
#: STRIPPING is the documented configuration with another path, which nginx removes from the request. PLAIN
#: leaves the path in the request and sends no `X-Forwarded-Prefix`.
STRIPPING = SAMPLE.replace("/vision", "/site/cameras")
PLAIN = re.sub(r".*X-Forwarded-Prefix.*\n", "", SAMPLE).replace("8000/;", "8000;")
PLAIN = PLAIN.replace("location /vision/ {", "location /vision {")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Run a service that listens on all IPv4 and IPv6 addresses."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("needs IPv6")
    settings = {"HOST": "::", "ALLOW_ANONYMOUS": "1", "ROOT_PATH": "/vision", "TRUSTED_PROXIES": "127.0.0.1"}
    with Service(settings | {"STREAM_MIN_FPS": "0", "SPLIT_V2": "0.5"}) as running:
        yield running


@pytest.fixture(scope="module", params=["removes the path", "leaves the path"])
def site(
    request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the URL of the service behind nginx, without a trailing slash."""
    text, path = (STRIPPING, "/site/cameras") if request.param == "removes the path" else (PLAIN, "/vision")
    folder: Path = tmp_path_factory.mktemp("nginx")
    with BalancingProxy("nginx", folder, [service.port], free_port(), nginx_text=text) as proxy:
        yield f"{proxy.http_url}{path}"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_pages_and_routes_work_below_the_path(site: str, http: aiohttp.ClientSession) -> None:
    async with http.get(site) as answer:  # redirected to the path with a slash
        assert (answer.status, str(answer.url)) == (200, f"{site}/")
        page = await answer.text()
    path = site.partition("//")[2].partition("/")[2]
    assert f'<base href="/{path}/">' in page
    for name in re.findall(r'(?:src|href)="(static/[^"]+|docs|favicon.ico)"', page):
        async with http.get(f"{site}/{name}") as answer:
            assert answer.status == 200, name
    async with http.get(f"{site}/openapi.json") as answer:
        assert (await answer.json())["servers"] == [{"url": f"/{path}"}]
    async with http.post(
        f"{site}/v1/predict", data=encode(scene()), headers={"Origin": site[: -len(path) - 1]}
    ) as answer:
        assert answer.status == 200, await answer.text()
    async with http.ws_connect(f"{site}/v1/stream", protocols=["detect.v1.json"]) as stream:
        await stream.send_json({"type": "hello"})
        assert (await stream.receive_json())["type"] == "welcome"


async def test_routes_without_a_version_keep_a_client_below_the_path(site: str) -> None:
    """The cookie has the path of the site, so the browser sends it back, and to no other site of the host."""
    path = site.partition("//")[2].partition("/")[2]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{site}/webrtc") as answer:
            version, cookie = answer.headers["X-Model-Version"], answer.cookies["rtva-client"]
        assert cookie["path"] == f"/{path}"
        for _ in range(3):
            async with browser.post(f"{site}/predict", data=encode(scene())) as answer:
                assert (answer.status, answer.headers["X-Model-Version"]) == (200, version)
                assert "rtva-client" not in answer.cookies
        async with browser.ws_connect(f"{site}/stream", protocols=["detect.v1.json"]) as stream:
            await stream.send_json({"type": "hello"})
            assert (await stream.receive_json())["model"]["version"] == version
        async with browser.post(f"{site}/predict", data=b"no image") as answer:
            assert (answer.status, answer.headers["X-Model-Version"]) == (415, version)
    async with WebrtcClient(f"{site}/whip", kind="whip", headers={"X-Client-Id": "camera-0"}) as client:
        assert client.location.startswith(f"{site}/v2/whip/")


async def test_addresses_of_sessions_lead_through_the_proxy(site: str, http: aiohttp.ClientSession) -> None:
    async with WebrtcClient(f"{site}/v1/whip", kind="whip") as client:
        assert client.location.startswith(f"{site}/v1/whip/")
        async with http.get(client.location) as answer:
            assert answer.status == 200


async def test_both_families_are_served_and_addresses_have_brackets(
    service: Service, http: aiohttp.ClientSession
) -> None:
    lines = [
        json.loads(line)["message"]
        for line in service.log.rpartition("\n")[0].splitlines()
        if "http://" in line
    ]
    assert any(f"http://[::]:{service.port}" in line for line in lines)
    for host in ("127.0.0.1", "[::1]"):
        base = f"http://{host}:{service.port}"
        async with http.post(f"{base}/v1/predict", data=encode(scene()), headers={"Origin": base}) as answer:
            assert answer.status == 200, await answer.text()
    async with WebrtcClient(f"http://[::1]:{service.port}/v1/whip", kind="whip") as client:
        assert client.location.startswith(f"http://[::1]:{service.port}/vision/v1/whip/")
