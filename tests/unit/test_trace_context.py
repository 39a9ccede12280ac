"""The `traceparent` of a request is parsed as the W3C specifies, is in all log lines, and is passed on."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
from multidict import CIMultiDict

from inference.core.log_format import JsonFormatter, TextFormatter
from streamer.http.problem_details import problem_middleware
from streamer.http.trace_context import parse_traceparent, read_trace_context, trace_headers

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADER = f"00-{TRACE}-{PARENT}-01"


def test_a_traceparent_has_trace_parent_and_flags() -> None:
    context = parse_traceparent(HEADER, "vendor=1")
    assert context is not None
    assert (context.trace_id, context.parent_id, context.is_sampled) == (TRACE, PARENT, True)
    assert context.headers() == {"traceparent": HEADER, "tracestate": "vendor=1"}


@pytest.mark.parametrize("flags", ["00", "02", "fe"])
def test_other_flags_do_not_sample(flags: str) -> None:
    context = parse_traceparent(f"00-{TRACE}-{PARENT}-{flags}")
    assert context is not None
    assert not context.is_sampled


def test_a_later_version_may_have_more_fields() -> None:
    context = parse_traceparent(f"cc-{TRACE}-{PARENT}-01-what-will-be")
    assert context is not None
    assert context.traceparent == HEADER


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00_{TRACE}_{PARENT}_01",
        "x" * 10_000,
    ],
)
def test_any_other_traceparent_is_ignored(text: str) -> None:
    assert parse_traceparent(text) is None


def test_two_traceparents_are_ignored() -> None:
    headers = CIMultiDict([("traceparent", HEADER), ("traceparent", HEADER)])
    assert read_trace_context(make_mocked_request("GET", "/", headers=headers)) is None


def test_a_tracestate_that_is_too_long_is_left_out() -> None:
    context = parse_traceparent(HEADER, "a=" + "x" * 600)
    assert context is not None
    assert context.headers() == {"traceparent": HEADER}


Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async def show(request: web.Request) -> web.Response:
        logging.getLogger("streamer.test").warning("within")
        if request.match_info["how"] == "crash":
            raise RuntimeError("broken")
        return web.json_response(trace_headers())

    app = web.Application(middlewares=[problem_middleware])
    app.router.add_get("/show/{how}", show)
    async with TestClient(TestServer(app)) as client:
        yield client


class Lines(logging.Handler):
    """Keeps each log line as the service would write it, in JSON and in text form."""

    def __init__(self) -> None:
        super().__init__()
        self.json: list[dict[str, str]] = []
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.json.append(json.loads(JsonFormatter().format(record)))
        self.text.append(TextFormatter().format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger("streamer")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


async def test_all_lines_about_a_request_have_its_trace(client: Client, lines: Lines) -> None:
    headers = {"traceparent": HEADER, "tracestate": "vendor=1", "X-Request-Id": "mine"}
    answer = await client.get("/show/all", headers=headers)
    assert await answer.json() == {"traceparent": HEADER, "tracestate": "vendor=1"}
    assert [line["logger"] for line in lines.json] == ["streamer.test", "streamer.requests"]
    expected = {"trace_id": TRACE, "parent_id": PARENT, "request_id": "mine"}
    for line in lines.json:
        assert {name: line[name] for name in expected} == expected
    assert lines.json[1]["message"].startswith("request mine: GET /show/{how} answered 200 in ")
    assert f"trace_id={TRACE}" in lines.text[0]


async def test_an_unsampled_request_gets_no_line_of_its_own(client: Client, lines: Lines) -> None:
    await client.get("/show/all", headers={"traceparent": HEADER[:-1] + "0"})
    assert [line["logger"] for line in lines.json] == ["streamer.test"]
    assert lines.json[0]["trace_id"] == TRACE


async def test_a_failure_has_the_trace_and_the_next_request_has_none(client: Client, lines: Lines) -> None:
    answer = await client.get("/show/crash", headers={"traceparent": HEADER})
    assert answer.status == 500
    assert [line.get("trace_id") for line in lines.json] == [TRACE] * 3
    lines.json.clear()
    answer = await client.get("/show/all")
    assert await answer.json() == {}
    assert "trace_id" not in lines.json[0]


async def test_a_refusal_has_a_line_with_its_status(client: Client, lines: Lines) -> None:
    await client.get("/nothing", headers={"traceparent": HEADER})
    assert [line["trace_id"] for line in lines.json] == [TRACE]
    assert "answered 404 in" in lines.json[0]["message"]
