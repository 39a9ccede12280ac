"""Checks that a worker releases all resources of its WebRTC sessions, in whichever way they end.

`pytest --full` starts some 1,000 sessions.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.service import Service
from tests.helpers.webrtc_client import Track, WebrtcClient

#: Number of sessions at the same time.
TOGETHER = 5
#: Number of sessions in all, without and with `--full`: multiples of WAYS and of ROUNDS * TOGETHER.
FEW, MANY = 15, 1005
#: The test measures the worker after each round. The first round creates what the worker keeps for good.
ROUNDS = 3
WAYS = 5


#: Descriptors, threads and tasks more than before that are no leak. A round that left one behind for each
#: session would add five.
MOST_MORE = 3


class Holdings:
    """Measures the file descriptors, threads, tasks and memory in MB that a worker holds."""

    def __init__(self, service: Service, worker: psutil.Process) -> None:
        self.descriptors = worker.num_fds()
        self.threads = worker.num_threads()
        self.tasks = service.metric("object_detection_event_loop_tasks")
        self.memory_mb = round(worker.memory_full_info().uss / 1e6, 1)

    def is_within(self, before: Holdings, memory_mb: float) -> bool:
        """Whether these are no more than before, and at most ``memory_mb`` more memory."""
        pairs = (
            (self.descriptors, before.descriptors),
            (self.threads, before.threads),
            (self.tasks, before.tasks),
        )
        within = all(now <= then + MOST_MORE for now, then in pairs)
        return within and self.memory_mb < before.memory_mb + memory_mb


# With `--full` the test takes longer than the usual time-out of tests.
@pytest.mark.timeout(3600)
async def test_sessions_that_come_and_go_leave_nothing_behind(tmp_path: Path, full: bool) -> None:
    settings = {
        "STREAM_MIN_FPS": "0",
        # Long enough for a busy machine; the end of each round waits until sessions reach this time-out.
        "WEBRTC_CONNECT_TIMEOUT_S": "20" if full else "12",
        "WEBRTC_SESSIONS_MAX": "1000",
    }
    count = MANY if full else FEW
    with Service(settings) as service:
        (worker,) = service.workers
        holdings = []
        for round_number in range(ROUNDS):
            first = round_number * count // ROUNDS
            for begin in range(first, first + count // ROUNDS, TOGETHER):
                await asyncio.gather(*(come_and_go(service, begin + n) for n in range(TOGETHER)))
            async with asyncio.timeout(60):
                while service.metric("object_detection_webrtc_sessions"):
                    await asyncio.sleep(0.2)
            await asyncio.sleep(2)
            holdings.append(Holdings(service, worker))
        # Compare the last round with the second: the first one creates what the worker keeps for good.
        # A worker opens files and starts tasks for a moment, so one look does not suffice.
        half, deadline = holdings[ROUNDS // 2], time.monotonic() + 60
        while not holdings[-1].is_within(half, 4 + 0.005 * count) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            holdings[-1] = Holdings(service, worker)
        ended = service.metric("object_detection_webrtc_ended_total")
        assert "Traceback" not in service.log
    shown = [vars(held) for held in holdings]
    (tmp_path / "holdings.json").write_text(json.dumps(shown))
    print(json.dumps(shown))  # noqa: T201 - for whoever asks with -s
    assert ended == count
    assert holdings[-1].is_within(half, 4 + 0.005 * count), shown


async def come_and_go(service: Service, number: int) -> None:
    """Start one session and end it in one of WAYS ways, which ``number`` selects."""
    client = WebrtcClient(f"{service.http_url}/v1/webrtc", track=Track(fps=10))
    way = number % WAYS
    if way == 0:  # offers and never connects
        await never_connect(client)
    elif way == 1:  # begins the handshake and gives up
        await give_up(client)
    else:
        async with client:
            try:
                await client.wait_for("welcome", timeout_s=60)
                await client.wait_for("result", timeout_s=60)
            except TimeoutError:
                peer = (client.peer.iceConnectionState, client.peer.connectionState)
                raise AssertionError(f"{peer}, service: {await client.state()}") from None
            if way == 2:  # pauses the stream, then closes the connection without `bye`
                client.send({"type": "pause", "stream": 0})
                await client.wait_for("drop")
                await client.peer.close()
            elif way == 3:  # pauses the stream and keeps the connection
                client.send({"type": "pause", "stream": 0})
                await client.wait_for("drop")
            # These ways delete the session at the end; the last one does so while frames still arrive.
            await client.http.delete(client.location)


async def never_connect(client: WebrtcClient) -> None:
    """Send an offer, read only the status of the answer, and close."""
    sdp = await client.offer()
    async with client.http.post(client.endpoint, json={"type": "offer", "sdp": sdp}) as response:
        assert response.status == 201
    await client.close()


async def give_up(client: WebrtcClient) -> None:
    """Connect until the DTLS handshake begins, and disappear during it."""
    connecting = asyncio.ensure_future(client._connect())
    transport = None
    async with asyncio.timeout(60):
        while transport is None or transport.state == "new":
            await asyncio.sleep(0.005)
            transceivers = client.peer.getTransceivers()
            transport = transceivers[0].sender.transport if transceivers else None
    # An unfinished handshake cannot send a close message, so the service receives nothing more.
    await client.close()
    await asyncio.gather(connecting, return_exceptions=True)
