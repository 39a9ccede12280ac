"""Tests that images come only from allowed hosts at public addresses, whatever names or redirects say."""

from __future__ import annotations

import asyncio
import base64
import socket
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streamer.access.identity import ALL_SCOPES, Identity, Quotas
from streamer.config.image_hosts import parse_image_hosts
from streamer.core.byte_budget import ByteBudget, Holding
from streamer.core.public_address import is_public
from streamer.http.caller import IDENTITY
from streamer.http.problem_details import Problem
from streamer.predict import image_url
from streamer.predict.image_url import ImageFetcher, ImageUrl
from streamer.predict.request_body import FETCHER, read_upload
from tests.helpers.image_hosts import IMAGE, LIMITS, fetch, is_own, refused, server


@pytest.fixture(autouse=True)
def _time_for_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_url, "_HEAD_S", 60.0)
    monkeypatch.setattr(image_url, "GRACE_S", 60.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
async def test_an_allowed_host_is_asked_without_anything_of_the_client(host: str) -> None:
    seen: list[web.Request] = []

    async def show(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(body=IMAGE)

    async with server({"/a b.jpg": show}) as running:
        url = f"http://{host}:{running.port}/a%20b.jpg?sig=a%2Fb#part"
        assert await fetch(url, f"other.example,{host}:{running.port}") == [IMAGE]
    assert seen[0].rel_url.raw_path_qs == "/a%20b.jpg?sig=a%2Fb"
    assert not {"Cookie", "Authorization", "Referer", "X-Forwarded-For"} & set(seen[0].headers)


@pytest.mark.parametrize(
    ("url", "rules"),
    [
        ("http://images.example/a", ""),
        ("http://images.example/a", "other.example"),
        ("http://images.example:8080/a", "images.example"),
        ("http://images.example:443/a", "images.example"),
        ("http://images.example/a", "*.images.example"),
        ("http://badimages.example/a", "*.images.example,images.example"),
        ("http://images.example.evil.example/a", "images.example"),
        ("http://images.example@evil.example/a", "images.example"),
        ("http://evil.example#@images.example/a", "images.example"),
        ("http://evil.example\\@images.example/a", "images.example"),
        ("http://user:password@images.example/a", "images.example"),
        ("ftp://images.example/a", "*"),
        ("file:///etc/passwd", "*"),
        ("http:///a", "*"),
        ("http://images.example/a b", "*"),
        ("http://images.example:99999/a", "*"),
        ("http://[::1/a", "*"),
        ("http://imäges.example/a", "*"),
    ],
)
async def test_any_other_host_is_refused_before_its_name_is_resolved(
    url: str, rules: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("resolved"))
    problem = await refused(url, rules)
    assert (problem.status, problem.code, problem.extra["field"]) == (400, "url_not_allowed", "images[0]")


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "a..example", ".example", "xn--google-.example", "xn--99999999.example"]
)
async def test_a_host_that_is_no_name_cannot_be_resolved(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(name: str, *arguments: Any) -> Any:
        name.encode("idna")  # raises UnicodeError, as the real `getaddrinfo` does
        return real("nowhere.invalid", *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    problem = await refused(f"http://{host}/a", "*")
    assert (problem.status, problem.code) == (422, "url_failed")


async def test_international_names_are_allowed_as_they_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, *more: real("127.0.0.1", *more))
    async with server({}) as running:
        rules = f"xn--bcher-kva.example:{running.port}"
        assert await fetch(f"http://xn--bcher-kva.example:{running.port}/a", rules) == [IMAGE]


NEVER = [
    *(
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0.0.0.0",  # noqa: S104 - an address to refuse
    ),
    *("localhost", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::1]", "[2001:0:7f00:1::1]", "[fe80::1]"),
    *("[fe80::1%25lo]", "[2600::5efe:7f00:1]", "[fc00::1]", "[fec0::1]", "[ff02::1]", "[fd00:ec2::254]"),
    *(
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
    ),
    *("[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[::ffff:93.184.216.34]"),
    *("192.0.2.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192"),
]


@pytest.mark.parametrize("host", NEVER)
async def test_no_host_of_the_own_networks_is_ever_connected_to(host: str) -> None:
    caught: list[object] = []

    async def catch(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caught.append(writer.get_extra_info("peername"))
        writer.close()

    async with await asyncio.start_server(catch, ["127.0.0.1", "::1"]) as trap:
        ports = {each.getsockname()[1] for each in trap.sockets}
        for port in ports:
            problem = await refused(f"http://{host}:{port}/", f"*:{port}", is_public)
            assert problem.status in (400, 422)
            assert problem.code in ("url_not_allowed", "url_failed")
    assert not caught


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_and_checked_anew(status: int) -> None:
    def to(location: str) -> web.Response:
        return web.Response(status=status, headers={"Location": location})

    async with server({}) as other:
        port = other.port
        routes = {
            "/good": to("/image"),
            "/host": to("http://evil.example/"),
            "/address": to(f"http://127.0.0.2:{port}/"),
            "/mapped": to(f"http://[::ffff:127.0.0.1]:{port}/"),
            "/file": to("file:///etc/passwd"),
            "/loop": to("/loop"),
            "/nowhere": web.Response(status=status),
        }
        async with server(routes) as running:
            base = f"http://127.0.0.1:{running.port}"
            rules = f"*:{port},127.0.0.1:{running.port}"
            assert await fetch(f"{base}/good", rules) == [IMAGE]
            for path, code in (
                ("host", "url_not_allowed"),
                ("address", "url_not_allowed"),
                ("mapped", "url_not_allowed"),
                ("file", "url_not_allowed"),
                ("loop", "url_failed"),
                ("nowhere", "url_failed"),
            ):
                assert (path, (await refused(f"{base}/{path}", rules)).code) == (path, code)


async def test_a_name_is_resolved_once_and_only_to_checked_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers differently the second time (DNS rebinding) is not asked a second time."""
    real, asked = socket.getaddrinfo, []

    def resolve(host: str, port: int, *more: Any, **options: Any) -> Any:
        if host != "images.example":
            return real(host, port, *more, **options)
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in (("127.0.0.2", "127.0.0.1") if len(asked) == 1 else ("127.0.0.2",))
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with server({}) as running:
        url, rules = f"http://images.example:{running.port}/", f"images.example:{running.port}"
        assert await fetch(url, rules) == [IMAGE]
        assert asked == ["images.example"]
        assert (await refused(url, rules)).code == "url_not_allowed"


async def test_sizes_and_times_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(bytes(1000))
        return response

    async def half(_request: web.Request) -> web.Response:
        return web.Response(body=bytes(4500))

    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(600):
            await response.write(b"1")
            await asyncio.sleep(0.1)
        return response

    routes = {
        "/drip": drip,
        "/large": web.Response(body=bytes(5001)),
        "/endless": endless,
        "/half": half,
        "/hang": hang,
        "/missing": web.Response(status=404),
        "/gzip": web.Response(body=IMAGE, headers={"Content-Encoding": "gzip"}),
        "/empty": web.Response(body=b""),
    }
    async with server(routes) as running:
        base, rules = f"http://127.0.0.1:{running.port}", f"*:{running.port}"
        for path, status, said in (
            ("large", 413, "more than 5000 bytes"),
            ("endless", 413, "more than 5000 bytes"),
            ("hang", 422, "does not answer within"),
            ("drip", 422, "does not arrive in time"),
            ("missing", 422, "answers 404"),
            ("gzip", 422, "compressed"),
            ("empty", 422, "empty"),
        ):
            monkeypatch.setattr(image_url, "_HEAD_S", 0.2 if path == "hang" else 60)
            monkeypatch.setattr(image_url, "GRACE_S", 0.5 if path == "drip" else 60)
            problem = await refused(f"{base}/{path}", rules)
            assert (path, problem.status, said in problem.detail) == (path, status, True), problem.detail
        first, second = await fetch([f"{base}/half"] * 2, rules)
        assert first == bytes(4500)
        assert isinstance(second, Problem)
        assert (second.status, "`images[1]`" in second.detail) == (413, True)
        problem = await refused(f"{base}/half", rules, budget=ByteBudget(3000))
        assert problem.status == 503
    problem = await refused(f"{base}/gone", rules)
    assert (problem.status, "cannot be reached" in problem.detail) == (422, True)


async def test_a_bad_url_of_several_costs_only_its_own_image() -> None:
    async with server({"/missing": web.Response(status=404)}) as running:
        base = f"http://127.0.0.1:{running.port}"
        urls = [f"{base}/missing", f"{base}/1", "http://other.example/", f"{base}/2"]
        found = await fetch(urls, f"127.0.0.1:{running.port}")
        assert (found[1], found[3]) == (IMAGE, IMAGE)
        for number, code in ((0, "url_failed"), (2, "url_not_allowed")):
            problem = found[number]
            assert isinstance(problem, Problem)
            assert (problem.code, problem.extra["field"]) == (code, f"images[{number}]")
        # The server has no room for any image, so this error does not belong to one of them.
        assert (await refused(urls, f"127.0.0.1:{running.port}", budget=ByteBudget(10))).status == 503


async def test_a_part_of_an_image_counts_towards_the_limit_and_is_not_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, limits = ImageFetcher._fetch, []

    async def fetch_part(
        fetcher: ImageFetcher, image: ImageUrl, most_bytes: int, holding: Holding
    ) -> bytes | memoryview:
        if image.field == "images[0]":
            assert holding.take(4000)
            raise Problem(422, "url_failed", "The connection breaks.")
        limits.append((most_bytes, holding.held_bytes))
        return await real(fetcher, image, most_bytes, holding)

    monkeypatch.setattr(ImageFetcher, "_fetch", fetch_part)
    async with server({}) as running:
        found = await fetch([f"http://127.0.0.1:{running.port}/"] * 2, f"127.0.0.1:{running.port}")
    assert found[1] == IMAGE
    assert limits == [(LIMITS.total_bytes - 4000, 0)]


async def test_fetched_images_of_a_body_are_counted_apart() -> None:
    """The byte budget is charged for the body on arrival, and for each image when it is fetched."""
    budget, found = ByteBudget(1 << 20), []

    async def predict(request: web.Request) -> web.Response:
        request[IDENTITY] = Identity("client", ALL_SCOPES, Quotas())
        with budget.hold("client", "body") as holding:
            found.append(await read_upload(request, LIMITS, holding))
            assert holding.held_bytes >= 2 * len(IMAGE)
        return web.Response()

    app = web.Application()
    app.router.add_post("/predict", predict)
    async with server({}) as images:
        app[FETCHER] = fetcher = ImageFetcher(parse_image_hosts(f"127.0.0.1:{images.port}"), is_own)
        app.cleanup_ctx.append(fetcher.lifetime)
        encoded = base64.b64encode(IMAGE).decode()
        document = {"images": [f"http://127.0.0.1:{images.port}/", encoded, "http://other.example/"]}
        async with TestClient(TestServer(app)) as client, client.post("/predict", json=document) as answer:
            assert answer.status == 200
    assert [bytes(image) for image in found[0].images] == [IMAGE, IMAGE, b""]
    assert [(number, problem.status) for number, problem in found[0].failed.items()] == [(2, 400)]
    assert found[0].fetched_bytes == len(IMAGE)
    assert budget.held_bytes == 0


@pytest.mark.parametrize(
    "text", ["https://a.example", "a b", "a:x", "a:0", "a:70000", "[::1", "a/b", "*.", "::x"]
)
def test_what_is_no_list_of_hosts_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are comma-separated host names"):
        parse_image_hosts(text)
