"""Tests the decoders of a real service: their sandbox, and that the service replaces those that fail."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from tests.helpers.service import Service
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone


def image(seed: int) -> bytes:
    shades = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", shades)[1].tobytes())


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({}) as service:
        yield service


def decoders(service: Service) -> list[psutil.Process]:
    """Return the worker's image decoders, which are children of its fork server of decoders."""
    (worker,) = service.workers
    servers = [
        child for child in worker.children() if "streamer.decoding.decoder" in " ".join(child.cmdline())
    ]
    return [decoder for server in servers for decoder in server.children()]


def post(service: Service, body: bytes) -> int:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{service.http_url}/v1/predict", data=body, headers={"Content-Type": "image/jpeg"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            json.loads(answer.read())
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_health_tells_what_holds_the_decoders(service: Service) -> None:
    health = service.get_json("/health")
    assert health["decoders"]["alive"] >= 1
    assert {"seccomp", "no_new_privs", "rlimits"} <= set(health["decoders"]["sandbox"])


def test_the_kernel_says_the_same(service: Service) -> None:
    found = decoders(service)
    assert found
    for decoder in found:
        lines = Path(f"/proc/{decoder.pid}/status").read_text().splitlines()
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert fields["Seccomp"].strip() == "2"
        assert fields["NoNewPrivs"].strip() == "1"
        assert fields["Threads"].strip() == "1"


def test_killed_decoders_are_replaced_and_no_post_fails(service: Service) -> None:
    for seed in range(6):
        for decoder in decoders(service):
            decoder.send_signal(signal.SIGKILL)
        assert post(service, image(seed)) == 200
    wait_for(lambda: service.metric("object_detection_decoders_ended_total", reason="killed") >= 6)


def test_stopped_decoders_are_replaced(service: Service) -> None:
    stopped = decoders(service)
    for decoder in stopped:
        decoder.send_signal(signal.SIGSTOP)
    assert post(service, image(100)) == 200
    wait_for(lambda: not any(decoder.is_running() for decoder in stopped), "stopped decoders are replaced")


def test_decoders_end_with_their_worker(service: Service) -> None:
    (worker,) = service.workers
    processes = [*decoders(service), *worker.children()]
    assert processes
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(process.is_running() for process in processes), "nothing outlives a worker")
    wait_for(lambda: post(service, image(101)) == 200, "its successor serves")
