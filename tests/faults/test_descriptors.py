"""R12: a worker without free file descriptors still answers its probes, and recovers."""

from __future__ import annotations

import asyncio
import resource
import socket
import time
from collections.abc import Callable

import psutil
import pytest

from tests.faults.conftest import Stubbed
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import PATIENT_POSTS

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

LIMIT = 256
CONNECTIONS = 400


def _open(port: int, count: int) -> list[socket.socket]:
    """Open idle connections from many addresses, as long as they are accepted."""
    opened = []
    for number in range(count):
        raw = socket.socket()
        raw.bind((f"127.0.1.{1 + number % 100}", 0))
        raw.settimeout(1)
        try:
            raw.connect(("127.0.0.1", port))
            opened.append(raw)
        except OSError:
            raw.close()
    return opened


async def _serve_some(stub: Stubbed) -> Account:
    async with http_session() as session:
        running = Crowd(streams=3, posters=1, fps=10).start(session, stub.service.http_url, End.after(2.0))
        return together(list(await asyncio.gather(*(task for _, task in running))))


def test_probes_are_answered_while_silent_connections_take_every_descriptor(
    stubbed: Start, figures: Result
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, hard))
    try:
        stub = stubbed(model_s=0.001, **PATIENT_POSTS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    worker: psutil.Process = stub.service.workers[0]
    lines = stub.service.log.count("\n")
    with ProbeRider(stub.service.port) as rider:
        opened = _open(stub.service.port, CONNECTIONS)
        used, begun = sum(worker.cpu_times()[:2]), time.monotonic()
        time.sleep(3.0)
        seconds = time.monotonic() - begun
        cpu = (sum(worker.cpu_times()[:2]) - used) / seconds
        most = worker.num_fds()
        for raw in opened:
            raw.close()
    written = stub.service.log.count("\n") - lines
    # The kernel retries a connection that finds the accept queue full after one second, and after two more.
    rider.ride.check(at_least_s=4.0)
    whole = asyncio.run(_serve_some(stub))
    figures.note(
        descriptors=LIMIT,
        connections_tried=CONNECTIONS,
        descriptors_at_most=most,
        cpu_share=cpu,
        log_lines=written,
        livez_ms_max=rider.ride.livez_max_s * 1e3,
    )
    assert most < LIMIT
    assert cpu <= 0.5
    assert written <= 5 * seconds
    assert (whole.wrong, whole.lost, whole.closed, whole.errors) == (0, 0, 0, {})
