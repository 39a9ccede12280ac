"""Tests that every error is sent as problem+json with an id, and discloses nothing internal."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestClient, TestServer

from streamer.http.problem_details import PROBLEM_TYPE, Problem, problem_middleware

INTERNAL = "internals of /srv/model.onnx"


async def refuse(request: web.Request) -> web.Response:
    raise {
        "parameter": Problem.invalid_parameter("conf_threshold", "x" * 500, "a number from 0 to 1"),
        "busy": Problem.unavailable("Busy.", retry_after_s=7),
        "crash": RuntimeError(INTERNAL),
        "slow": Problem.body_timeout("Too slow."),
        "gone": web.HTTPGone(),
    }[request.match_info["how"]]


async def redirect(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/elsewhere")


async def echo_id(request: web.Request) -> web.Response:
    return web.Response(text=await request.text())


async def open_socket(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await socket.send_str("open")
    if await socket.receive_str() == "crash":
        raise RuntimeError(INTERNAL)
    raise Problem.bad_request("too late for this")


@pytest.fixture
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = web.Application(middlewares=[problem_middleware])
    app.router.add_get("/refuse/{how}", refuse)
    app.router.add_get("/redirect", redirect)
    app.router.add_post("/echo", echo_id)
    app.router.add_get("/socket", open_socket)
    async with TestClient(TestServer(app)) as client:
        yield client


Client = TestClient[web.Request, web.Application]


async def test_a_problem_names_field_found_and_allowed(client: Client) -> None:
    response = await client.get("/refuse/parameter")
    assert response.status == 400
    assert response.content_type == PROBLEM_TYPE
    body = json.loads(await response.text())
    assert body["type"] == "about:blank"
    assert (body["title"], body["status"], body["code"]) == ("Bad Request", 400, "invalid_parameter")
    assert (body["field"], body["allowed"]) == ("conf_threshold", "a number from 0 to 1")
    assert len(body["found"]) == 100
    assert "conf_threshold" in body["detail"]
    assert body["request_id"] == response.headers["X-Request-Id"]


async def test_retry_after_is_a_header(client: Client) -> None:
    response = await client.get("/refuse/busy")
    assert (response.status, response.headers["Retry-After"]) == (503, "7")


async def test_an_unexpected_error_tells_nothing_internal(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.get("/refuse/crash")
    text = await response.text()
    assert response.status == 500
    assert INTERNAL not in text
    assert "Traceback" not in text
    assert INTERNAL in caplog.text
    assert json.loads(text)["request_id"] in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("POST", "/redirect", 405), ("GET", "/refuse/gone", 410)],
)
async def test_the_frameworks_own_errors_have_the_same_form(
    client: Client, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert (response.status, response.content_type) == (status, PROBLEM_TYPE)
    assert json.loads(await response.text())["status"] == status
    if status == 405:
        assert response.headers["Allow"] == "GET,HEAD"


async def test_redirects_pass(client: Client) -> None:
    response = await client.get("/redirect", allow_redirects=False)
    assert response.status == 302


async def test_a_stalled_body_costs_the_connection(client: Client) -> None:
    response = await client.get("/refuse/slow")
    assert response.status == 408
    assert response.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "offered", ["a", "abc-123:X._", "f" * 128, "a b", "<b>", "ä", "Root=1-67;Parent=53/x,+%@"]
)
async def test_a_printable_id_of_the_client_is_kept(client: Client, offered: str) -> None:
    response = await client.post("/echo", data=b"x", headers={"X-Request-Id": offered})
    assert response.headers["X-Request-Id"] == offered


@pytest.mark.parametrize("offered", ["", "f" * 129, "a\tb", "\u202ea", "\udcff"])
async def test_any_other_id_is_replaced(client: Client, offered: str) -> None:
    response = await client.post("/echo", data=b"x", headers={"X-Request-Id": offered})
    assert response.headers["X-Request-Id"] != offered
    assert len(response.headers["X-Request-Id"]) == 16


async def test_an_expected_body_has_not_been_answered_yet(client: Client) -> None:
    response = await client.post("/echo", data=b"body", expect100=True)
    assert await response.text() == "body"
    response = await client.post("/nowhere", data=b"body", expect100=True)
    assert response.content_type == PROBLEM_TYPE


@pytest.mark.parametrize("how", ["crash", "problem"])
async def test_an_open_socket_gets_no_http_answer(client: Client, how: str) -> None:
    async with client.ws_connect("/socket") as socket:
        assert await socket.receive_str() == "open"
        await socket.send_str(how)
        message = await socket.receive(timeout=60)
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
        assert "application/problem+json" not in str(message.data)


def test_every_constructor_has_its_status() -> None:
    made = {
        400: Problem.bad_request("a"),
        401: Problem.unauthorized("a"),
        403: Problem.forbidden("a"),
        404: Problem.not_found("a"),
        406: Problem.not_acceptable("a"),
        408: Problem.body_timeout("a"),
        413: Problem.too_large("a"),
        415: Problem.unsupported_media("a"),
        422: Problem.damaged("a"),
        426: Problem.upgrade_required("a"),
        429: Problem.too_many_requests("a", 3),
        500: Problem.internal(),
        503: Problem.unavailable("a", 3),
        504: Problem.deadline_exceeded("a"),
    }
    assert {status: problem.status for status, problem in made.items()} == {status: status for status in made}
    assert len({problem.code for problem in made.values()}) == len(made)
    assert Problem(599, "odd", "a").members("id")["title"] == "Error"


class Held:
    """Stands for the body of a request."""


async def test_an_error_that_was_answered_holds_nothing_of_its_request() -> None:
    """Reference counting alone must free the body, without the garbage collector.

    The error holds the frames of its traceback, these hold the future, and the future holds the error.
    """
    seen: list[weakref.ref[Held]] = []

    async def wait(answered: asyncio.Future[None], _body: Held) -> None:
        await answered

    async def handler(_request: web.Request) -> web.Response:
        body = Held()
        seen.append(weakref.ref(body))
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answered.set_exception(ValueError("refused"))
        try:
            await wait(answered, body)
        except ValueError as error:
            told = Problem.unavailable("Busy.", retry_after_s=1)
            raise told from error
        return web.Response()

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_get("/", handler)
    gc.disable()
    try:
        async with TestClient(TestServer(app)) as client:
            async with client.get("/") as answer:
                assert answer.status == 503
                await answer.read()
            async with client.get("/missing") as answer:  # the connection is done with the first request
                assert answer.status == 404
            assert [ref() for ref in seen] == [None]
    finally:
        gc.enable()
