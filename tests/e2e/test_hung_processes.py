"""Tests that probes are answered truthfully while a process hangs, and that a new process soon replaces it.

All tests but the last use the same service, one after another; the test of the drain ends that service.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.service import Service, is_dead
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone


class Prober:
    """Requests ``/livez`` repeatedly on new connections, and records the answers."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        #: When each request was sent, in CLOCK_MONOTONIC seconds, how long its answer took, and its status.
        self.answers: list[tuple[float, float, int]] = []

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            status, _ = self._service.get("/livez")
            self.answers.append((begun, time.monotonic() - begun, status))
            time.sleep(0.02)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


#: A fork server of decoders that is younger than this, in seconds, gets more time to answer.
YOUNG_S = 20.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return null_model(tmp_path_factory.mktemp("model") / "null.onnx")


@pytest.fixture(scope="module")
def replica(model: Path) -> Iterator[Service]:
    """Run a service with two workers and a sampling process; the tests stop its processes in turn."""
    with Service({"MODEL_V1_PATH": str(model), "WORKERS": "2", "DRAIN_TIMEOUT_S": "120"}) as service:
        yield service


@pytest.fixture
def whole(replica: Service) -> Service:
    """Return the replica once all its processes report `ok`."""

    def complete() -> bool:
        # While a worker on a busy machine does not accept connections, the supervisor answers instead of it,
        # without `processes`.
        processes = replica.get_json("/health").get("processes", {})
        return bool(processes.pop("workers", None) == ["ok", "ok"] and set(processes.values()) == {"ok"})

    wait_for(complete)
    return replica


def states(service: Service) -> dict[str, Any]:
    """Return the states of the processes; empty where the supervisor answers in place of a worker."""
    processes: dict[str, Any] = service.get_json("/health").get("processes", {})
    return processes


def restarts(service: Service, **labels: str) -> float:
    return service.metric("object_detection_process_restarts_total", **labels)


def test_a_stopped_supervisor_costs_nobody_an_answer_and_is_told(whole: Service) -> None:
    before = restarts(whole)
    whole.signal(signal.SIGSTOP)
    try:
        wait_for(lambda: states(whole).get("supervisor") == "silent")
        assert whole.get("/health")[0] == 200
        assert whole.get("/livez")[0] == 200
    finally:
        whole.signal(signal.SIGCONT)
    wait_for(lambda: states(whole).get("supervisor") == "ok")
    assert restarts(whole) == before


def test_a_group_that_was_suspended_as_a_whole_goes_on(whole: Service) -> None:
    before = restarts(whole)
    group = [whole.supervisor, *whole.supervisor.children(), whole.inference]
    for process in group:
        process.send_signal(signal.SIGSTOP)
    time.sleep(6.0)
    for process in reversed(group):  # the supervisor goes on last, and must not restart the others
        process.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    assert [process for process in group if is_dead(process)] == []
    for process in group:
        process.send_signal(signal.SIGSTOP)
    time.sleep(5.5)
    for process in group:  # now it goes on first, and must give the others some time
        process.send_signal(signal.SIGCONT)
    time.sleep(1.0)
    assert [process for process in group if is_dead(process)] == []
    assert restarts(whole) == before


def test_a_stopped_sampling_process_is_replaced(whole: Service) -> None:
    before = {role: restarts(whole, role=role) for role in ("observer", "worker")}
    victim = whole.sampling_process
    victim.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_dead(victim))
    wait_for(lambda: restarts(whole, role="observer") > before["observer"])
    wait_for(lambda: states(whole).get("observer") == "ok")
    assert restarts(whole, role="observer") == before["observer"] + 1
    assert restarts(whole, role="worker") == before["worker"]


def decoding(service: Service) -> list[psutil.Process]:
    """Return the decoders of all workers and their fork servers."""
    found = []
    for process in service.supervisor.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "decoding" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_stopped_decoders_and_their_servers_are_replaced_when_there_is_work(whole: Service) -> None:
    before = restarts(whole)
    wait_for(lambda: len(decoding(whole)) >= 4, "the decoders of both workers")
    youngest = max(process.create_time() for process in decoding(whole))
    time.sleep(max(0.0, youngest + YOUNG_S + 0.5 - time.time()))
    stopped = decoding(whole)
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    image = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()

    def served() -> bool:
        client = http.client.HTTPConnection("127.0.0.1", whole.port, timeout=60)
        with contextlib.closing(client):
            client.request("POST", "/v1/predict", image, {"Content-Type": "image/jpeg"})
            return client.getresponse().status == 200

    wait_for(served)
    # Each worker has its own decoders, and the kernel chooses the worker of a connection. Repeat until both
    # workers have replaced theirs.
    wait_for(lambda: served() and all(is_dead(process) for process in stopped))
    assert restarts(whole) == before


def test_a_stopped_inference_process_is_replaced_within_seconds_and_health_says_so(whole: Service) -> None:
    before, victim = restarts(whole, role="inference"), whole.inference
    # The supervisor is stopped until `/health` has said that the process hangs; otherwise the successor might
    # be ready before the test asks.
    whole.signal(signal.SIGSTOP)
    try:
        victim.send_signal(signal.SIGSTOP)
        wait_for(lambda: whole.get("/health")[0] == 503, "the process is reported")
    finally:
        whole.signal(signal.SIGCONT)
    wait_for(lambda: is_dead(victim), "it is killed")
    whole.wait_ready()
    assert restarts(whole, role="inference") == before + 1


def stop_a_worker(service: Service) -> None:
    """Stop a worker, and assert that it is replaced and that probes are answered all the time."""
    workers, before = service.workers, restarts(service, role="worker")
    victim = workers[0]
    with Prober(service) as prober:
        wait_for(lambda: prober.answers)
        victim.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        status, body = service.get("/health")
        # The supervisor kills the worker after 5 s. Not even the first request waits that long.
        assert time.monotonic() - begun < 4.0
        if len(workers) == 1:
            assert (status, json.loads(body)["status"]) == (503, "restarting")
        else:
            wait_for(lambda: "does not answer" in str(service.get_json("/health").get("reasons")))
            assert service.get("/health")[0] == 200
        wait_for(lambda: is_dead(victim))
        wait_for(lambda: len(service.workers) == len(workers))
        service.wait_ready()
    # Requests that were sent before the stop do not count: the worker may have accepted them, and no other
    # process can answer those.
    answers = [(took_s, status) for sent, took_s, status in prober.answers if sent > begun]
    assert {status for _, status in answers} == {200}
    # An answer takes 100 ms of waiting for the worker and one answer in its place. One that waited for the
    # worker would take the 5 s until it is killed.
    assert max(took_s for took_s, _ in answers) < 4.0
    wait_for(lambda: "killing worker" in service.log, "the log says so")
    assert restarts(service, role="worker") == before + 1
    wait_for(lambda: "reasons" not in service.get_json("/health"))
    wait_for(lambda: states(service).get("workers") == ["ok"] * len(workers))


def test_a_stopped_worker_is_replaced_and_probes_never_wait_for_it(whole: Service) -> None:
    stop_a_worker(whole)


def test_a_drain_does_not_wait_for_a_stopped_worker(whole: Service) -> None:
    whole.workers[0].send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    assert whole.stop(timeout_s=150) == 0
    # The worker is killed after 5 s. Without that, the drain would wait for `DRAIN_TIMEOUT_S`.
    assert time.monotonic() - begun < 60


def test_with_its_only_worker_stopped_the_replica_is_not_ready_but_alive(model: Path) -> None:
    with Service({"MODEL_V1_PATH": str(model), "SAMPLING": "False"}) as service:
        stop_a_worker(service)
