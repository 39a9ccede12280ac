"""Tests the decoders of a real service: their sandbox, and that the service replaces those that fail."""

from __future__ import annotations

import contextlib
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

from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone


def image(seed: int) -> bytes:
    shades = np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", shades)[1].tobytes())


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service(PATIENT) as service:
        yield service


def decoders(service: Service) -> list[psutil.Process]:
    """Return the worker's image decoders, which are children of its fork server of decoders."""
    (worker,) = service.workers
    found: list[psutil.Process] = []
    for child in worker.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just been replaced
            if "streamer.decoding.decoder" in " ".join(child.cmdline()):
                found += child.children()
    return found


def signal_all(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def post(service: Service, body: bytes) -> int:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{service.http_url}/v1/predict", data=body, headers={"Content-Type": "image/jpeg"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
            json.loads(answer.read())
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:  # the worker has died
        return 0


def test_health_tells_what_holds_the_decoders(service: Service) -> None:
    wait_for(lambda: service.get_json("/health")["decoders"]["alive"] >= 1, "a decoder is ready")
    health = service.get_json("/health")
    assert {"seccomp", "no_new_privs", "rlimits"} <= set(health["decoders"]["sandbox"])


def test_the_kernel_says_the_same(service: Service) -> None:
    # A decoder locks itself in before it reports that it is ready.
    wait_for(lambda: locked_in(decoders(service)), "all decoders are locked in")


def locked_in(processes: list[psutil.Process]) -> bool:
    """Return whether there are processes, and the kernel says that all of them are locked in."""
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:  # it has just been replaced
            return False
        fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if [fields[name].strip() for name in ("Seccomp", "NoNewPrivs", "Threads")] != ["2", "1", "1"]:
            return False
    return bool(processes)


def test_killed_decoders_are_replaced_and_no_post_fails(service: Service) -> None:
    for seed in range(6):
        wait_for(lambda: decoders(service), "a decoder")
        signal_all(decoders(service), signal.SIGKILL)
        assert post(service, image(seed)) == 200
    # On a busy machine the service may have replaced some of them itself.
    wait_for(lambda: service.metric("object_detection_decoders_ended_total") >= 6, "all ends are counted")
    assert service.metric("object_detection_decoders_ended_total", reason="killed") > 0


def test_stopped_decoders_are_replaced(service: Service) -> None:
    stopped = decoders(service)
    signal_all(stopped, signal.SIGSTOP)
    assert post(service, image(100)) == 200
    wait_for(lambda: not any(decoder.is_running() for decoder in stopped), "stopped decoders are replaced")


def test_decoders_end_with_their_worker(service: Service) -> None:
    (worker,) = service.workers
    processes = [*decoders(service), *worker.children()]
    assert processes
    worker.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(process.is_running() for process in processes), "nothing outlives a worker")
    wait_for(lambda: post(service, image(101)) == 200, "its successor serves")
