"""Tests that every frame has one outcome when sockets are cut, processes killed or the server restarted."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import WSMsgType, web

from streamer.client import (
    ConnectionFailed,
    DetectStream,
    Drop,
    FrameError,
    Options,
    Outcome,
    Phase,
    Rejected,
    Result,
    State,
)
from streamer.core.backoff import Backoff
from tests.faults.fault_proxy import FaultProxy
from tests.helpers.ports import free_port
from tests.helpers.service import PATIENT, Service

PIXELS = np.full((120, 160, 3), 90, np.uint8)


@pytest.fixture(autouse=True)
def _quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit reconnect delays to 0.2 s to save time; unit tests check the real delays."""
    real = Backoff.next_s
    monkeypatch.setattr(Backoff, "next_s", lambda self, asked_s=None: min(0.2, real(self, asked_s)))


async def collect(stream: DetectStream) -> list[Outcome]:
    return [outcome async for outcome in stream]


def connects(states: list[State]) -> list[bool]:
    """Return, for each connection made, whether it resumed a session."""
    return [state.resumed for state in states if state.phase is Phase.CONNECTED]


async def until(true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


async def test_mode_all_sends_again_over_cut_connections_and_loses_nothing(service: Service) -> None:
    states: list[State] = []
    async with (
        FaultProxy(service.port) as proxy,
        DetectStream(f"ws://127.0.0.1:{proxy.port}", mode="all", on_state=states.append) as stream,
    ):
        reader = asyncio.create_task(collect(stream))
        for index in range(80):
            await stream.send(PIXELS, tag=index)
            if index in (20, 45, 46):
                proxy.cut()
        await stream.finish()
        outcomes = await reader
        ledger = stream.ledger
    assert sorted(outcome.tag for outcome in outcomes) == list(range(80))
    assert all(isinstance(outcome, Result) for outcome in outcomes)
    assert (ledger.balance, ledger.sent, ledger.results) == (0, 80, 80)
    assert ledger.resent > 0
    assert proxy.connections >= 3
    assert connects(states)[0] is False
    assert any(connects(states)[1:])


async def test_live_never_sends_again_and_says_what_was_lost(service: Service) -> None:
    states: list[State] = []
    async with (
        FaultProxy(service.port) as proxy,
        DetectStream(
            f"ws://127.0.0.1:{proxy.port}", params={"track": True}, on_state=states.append
        ) as stream,
    ):
        reader = asyncio.create_task(collect(stream))
        for _ in range(3):
            before = stream.ledger.sent
            while stream.ledger.sent < before + 5:
                stream.offer(PIXELS)
                await asyncio.sleep(0.01)
            while not stream.ledger.in_flight:
                stream.offer(PIXELS)
                await asyncio.sleep(0)
            proxy.cut()
            await until(lambda: stream.state.phase is not Phase.CONNECTED)
            assert not stream.offer(PIXELS)
            await until(lambda: stream.state.phase is Phase.CONNECTED)
        await stream.finish()
        outcomes = await reader
        ledger = stream.ledger
    sent = [outcome.seq for outcome in outcomes if outcome.seq]
    assert sorted(sent) == list(range(1, ledger.sent + 1))
    assert (ledger.balance, ledger.resent) == (0, 0)
    assert ledger.dropped["disconnected"] >= 3
    assert ledger.skipped["disconnected"] >= 3
    assert connects(states) == [False, True, True, True]
    lost = [o for o in outcomes if isinstance(o, Drop) and o.reason == "disconnected" and o.seq]
    assert len(lost) == ledger.dropped["disconnected"]


async def test_parameters_and_cfg_survive_a_cut(service: Service) -> None:
    async with (
        FaultProxy(service.port) as proxy,
        DetectStream(f"ws://127.0.0.1:{proxy.port}", mode="all") as stream,
    ):
        assert await stream.configure(conf_threshold=0.77, classes=["dog"]) == 1
        proxy.cut()
        await until(lambda: stream.state.phase is not Phase.CONNECTED)
        # The client sends this change over the next connection, because it has none now.
        assert await stream.configure(conf_threshold=0.66) == 2
        await stream.send(PIXELS)
        outcome = await anext(stream)
        assert isinstance(outcome, Result)
        assert outcome.cfg == 2
        assert stream.effective["conf_threshold"] == 0.66
        assert stream.effective["classes"] == ["dog"]


async def test_one_try_means_one_connection(service: Service) -> None:
    options = Options(give_up_after_s=0)
    async with (
        FaultProxy(service.port) as proxy,
        DetectStream(f"ws://127.0.0.1:{proxy.port}", options=options) as stream,
    ):
        proxy.cut()
        with pytest.raises(ConnectionFailed, match="lost"):
            await anext(stream)
        with pytest.raises(ConnectionFailed, match="lost"):
            stream.offer(PIXELS)
    assert stream.ledger.balance == 0


async def test_a_server_that_stays_away_is_given_up(service: Service) -> None:
    options = Options(give_up_after_s=3.0)
    async with (
        FaultProxy(service.port) as proxy,
        DetectStream(f"ws://127.0.0.1:{proxy.port}", mode="all", options=options) as stream,
    ):
        await stream.send(PIXELS)
        await anext(stream)
        proxy.refusing = True
        proxy.cut()
        await until(lambda: stream.state.phase is not Phase.CONNECTED)
        await stream.send(PIXELS, tag="left")
        last = await anext(stream)
        assert isinstance(last, Drop)
        assert (last.tag, last.reason, last.seq) == ("left", "disconnected", 0)
        with pytest.raises(ConnectionFailed):
            await anext(stream)
        assert stream.ledger.balance == 0


async def test_killed_processes_and_a_restart_cost_no_frame_its_outcome(yolox_nano: Path) -> None:
    """Kill the inference process and a worker, then restart the whole service on the same port."""
    settings = PATIENT | {"MODEL_V1_PATH": str(yolox_nano), "PORT": str(free_port())}
    states: list[State] = []
    service = await asyncio.to_thread(lambda: Service(settings).__enter__())
    try:
        options = Options(give_up_after_s=120)
        async with DetectStream(
            service.ws_url, mode="all", options=options, on_state=states.append
        ) as stream:
            reader = asyncio.create_task(collect(stream))

            async def push(count: int) -> None:
                for _ in range(count):
                    await stream.send(PIXELS)

            await push(10)
            await asyncio.to_thread(lambda: service.inference.kill())
            await push(20)
            await asyncio.to_thread(lambda: service.workers[0].kill())
            await push(20)
            await asyncio.to_thread(service.stop, signal.SIGTERM)
            pushing = asyncio.create_task(push(20))
            service = await asyncio.to_thread(lambda: Service(settings).__enter__())
            await pushing
            await stream.finish(timeout_s=120)
            outcomes = await reader
            ledger = stream.ledger
    finally:
        await asyncio.to_thread(service.stop)
    assert sorted(outcome.seq for outcome in outcomes) == list(range(1, 71))
    assert ledger.balance == 0
    # Only frames that the killed inference process held may end with an error; all others have results.
    errors = {o.code for o in outcomes if isinstance(o, FrameError)}
    assert errors <= {"inference_restarting", "inference_failed"}
    assert ledger.results + ledger.errors.total() == 70
    assert len(connects(states)) >= 3


Handler = Callable[[web.WebSocketResponse], Awaitable[None]]


class FakeServer:
    """Simulates a detect.v1 server; each request uses the next of ``handlers``, and the last one repeats."""

    def __init__(self, handlers: list[Handler | web.Response]) -> None:
        self._handlers = handlers
        self.headers: list[Any] = []
        self.hellos: list[dict[str, Any]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeServer:
        app = web.Application()
        app.router.add_get("/v1/stream", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"ws://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(request.headers)
        handler = self._handlers.pop(0) if len(self._handlers) > 1 else self._handlers[0]
        if isinstance(handler, web.Response):
            return handler
        ws = web.WebSocketResponse(protocols=["detect.v1.json"], compress=False)
        await ws.prepare(request)
        self.hellos.append(await ws.receive_json())
        await ws.send_json(
            {
                "type": "welcome",
                "session": f"s{len(self.hellos)}",
                "resumed": False,
                "model": {"labels": ["person"]},
                "limits": {},
                "flow": {"win": 2, "max_fps": None},
                "params": {},
            }
        )
        await handler(ws)
        return ws


async def answer(ws: web.WebSocketResponse) -> None:
    """Answer every frame, after a few invalid or unknown messages that a client must ignore."""
    await ws.send_str("not json")
    await ws.send_json({"type": "invented_later", "win": 0})
    await ws.send_json({"type": "result", "seq": 1})  # all other fields are missing
    async for message in ws:
        if message.type is WSMsgType.BINARY:
            seq = int.from_bytes(message.data[4:8], "little")
            await ws.send_json(
                {
                    "type": "result",
                    "seq": seq,
                    "ts": 0,
                    "width": 9,
                    "height": 9,
                    "boxes": [],
                    "ack": seq,
                    "win": 2,
                    "new_field": 1,
                }
            )


def closing(code: int, reason: str = "why") -> Handler:
    async def close(ws: web.WebSocketResponse) -> None:
        await ws.close(code=code, message=reason.encode())

    return close


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4404, 4406, 4409, 4422, 1009])
async def test_final_close_codes_end_the_stream_with_the_servers_reason(code: int) -> None:
    async with FakeServer([closing(code, "because so")]) as server:
        stream = DetectStream(server.url)
        with pytest.raises(Rejected, match="because so") as caught:
            async with stream:
                await anext(stream)
    assert caught.value.code == code
    assert len(server.hellos) == 1


@pytest.mark.parametrize("code", [1000, 1011, 1012, 1013, 4408, 4410, 4429, 4440, 4441])
async def test_other_close_codes_are_followed_by_a_new_connection(code: int) -> None:
    async with FakeServer([closing(code), answer]) as server, DetectStream(server.url, mode="all") as stream:
        await stream.send(PIXELS)
        assert isinstance(await anext(stream), Result)
        assert len(server.hellos) == 2
        assert server.hellos[1]["resume"] == {"session": "s1", "acks": {"0": 0}}


async def test_a_server_that_leaves_says_when_to_come_back() -> None:
    async def leave(ws: web.WebSocketResponse) -> None:
        await ws.send_json({"type": "bye", "code": 1012, "reason": "restart", "reconnect_ms": 1500})
        await asyncio.sleep(0.2)
        await ws.close(code=1012)

    states: list[State] = []
    async with (
        FakeServer([leave, answer]) as server,
        DetectStream(server.url, on_state=states.append) as stream,
    ):
        await until(lambda: stream.state.phase is Phase.WAITING or len(server.hellos) == 2)
        await stream.send(PIXELS)
        assert isinstance(await anext(stream), Result)
    assert Phase.WAITING in [state.phase for state in states]


async def test_a_busy_server_is_asked_again() -> None:
    busy = web.Response(status=503, headers={"Retry-After": "1"})
    states: list[State] = []
    async with (
        FakeServer([busy, answer]) as server,
        DetectStream(server.url, on_state=states.append) as stream,
    ):
        assert stream.offer(PIXELS)
        assert isinstance(await anext(stream), Result)
        assert server.headers[0]["Sec-WebSocket-Protocol"] == "detect.v1.msgpack,detect.v1.json"
        assert "Sec-WebSocket-Extensions" not in server.headers[0]
    assert any("HTTP 503" in state.detail for state in states)


async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = Options(give_up_after_s=0, connect_timeout_s=0.3)
        with pytest.raises(ConnectionFailed, match="did not answer"):
            async with DetectStream(f"ws://127.0.0.1:{silent.getsockname()[1]}", options=options):
                pass
