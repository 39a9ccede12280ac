"""If the server does not answer, the client reports it within two seconds and goes on trying."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from streamer.client import DetectStream, Options, Phase, State
from streamer.client.frame_stream import SILENT_S, FrameStream
from streamer.client.video_stream import VideoStream

#: The client never gives up, so attempts go on for as long as the tests wait.
PATIENT = Options(give_up_after_s=None)


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Run a server that accepts connections and never answers; yield its URL."""
    connections: list[asyncio.StreamWriter] = []

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in connections:
            writer.close()


@pytest.fixture
def nobody() -> Iterator[str]:
    """Yield a URL at which no server listens; its port stays reserved."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


async def entered(stream: FrameStream) -> None:
    async with stream:
        pass


@contextlib.asynccontextmanager
async def entering(stream: FrameStream) -> AsyncIterator[None]:
    """Enter the stream in a task that is cancelled at the end."""
    task = asyncio.create_task(entered(stream))
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("kind", [DetectStream, VideoStream])
async def test_a_server_that_does_not_answer_is_reported_while_the_client_waits(
    kind: type[DetectStream | VideoStream],
) -> None:
    seen: asyncio.Queue[State] = asyncio.Queue()
    assert SILENT_S < 2
    async with silent_server() as url:
        stream = kind(url, options=PATIENT, on_state=seen.put_nowait)
        async with entering(stream), asyncio.timeout(60):
            while (state := await seen.get()).silent_s is None:
                assert state.trouble == ""
        assert state.phase is Phase.CONNECTING
        assert state.trouble.endswith("has not answered for 1.5 s; waiting")


@pytest.mark.parametrize("kind", [DetectStream, VideoStream])
async def test_without_a_watcher_the_log_says_it(
    kind: type[DetectStream | VideoStream], nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "dummy-token-7"  # noqa: S105 - a dummy
    with caplog.at_level(logging.WARNING, "streamer.client"):
        async with entering(kind(nobody, options=PATIENT, token=secret)), asyncio.timeout(60):
            while not caplog.records:
                await asyncio.sleep(0.01)
    (text, *_) = caplog.messages
    assert "next try in" in text
    assert "Connect call failed" in text or "refused" in text
    assert secret not in caplog.text


async def test_a_watcher_is_told_instead_of_the_log(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    seen: asyncio.Queue[State] = asyncio.Queue()
    async with (
        entering(DetectStream(nobody, options=PATIENT, on_state=seen.put_nowait)),
        asyncio.timeout(60),
    ):
        while (state := await seen.get()).phase is not Phase.WAITING:
            pass
    assert "next try in" in state.trouble
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
