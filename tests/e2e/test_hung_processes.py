"""Processes that stop or hang: probes are answered truthfully, and a successor serves within seconds."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

from tests.service import Service, is_dead
from tests.waiting import wait_for


class Prober:
    """Asks ``/livez`` on new connections over and over; knows the slowest answer and which failed."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.slowest_s = 0.0
        #: CLOCK_MONOTONIC seconds at which these were sent.
        self.failed: list[float] = []
        self.asked = 0

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            status, _ = self._service.get("/livez")
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            self.asked += 1
            if status != 200:
                self.failed.append(begun)
            time.sleep(0.02)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def running(**settings: str) -> Iterator[Service]:
    with Service({"SAMPLING": "False"} | settings) as service:
        yield service


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_worker_is_replaced_and_probes_never_wait_for_it(workers: int) -> None:
    with running(WORKERS=str(workers)) as service:
        victim = service.workers[0]
        with Prober(service) as prober:
            wait_for(lambda: prober.asked > 0)
            victim.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            wait_for(lambda: is_dead(victim), timeout_s=15)
            noticed_s = time.monotonic() - begun
            wait_for(lambda: len(service.workers) == workers)
            service.wait_ready()
        assert noticed_s < 7.5
        # What the worker had accepted when it was stopped, nobody else can answer.
        assert [sent for sent in prober.failed if sent > begun] == []
        assert prober.asked > 20
        # 100 ms of patience and one answer; generous, because other processes share these cores.
        assert prober.slowest_s < 1.0
        assert "killing worker" in service.log
        assert service.metric("object_detection_process_restarts_total", role="worker") == 1


def test_health_names_a_worker_that_does_not_answer() -> None:
    with running(WORKERS="2") as service:
        victim = service.workers[0]
        victim.send_signal(signal.SIGSTOP)

        def says_so() -> bool:
            status, _ = service.get("/health")
            body = service.get_json("/health")
            return status == 200 and any("does not answer" in text for text in body.get("reasons", []))

        wait_for(says_so, timeout_s=10)
        wait_for(lambda: service.get_json("/health")["processes"]["workers"] == ["ok", "ok"])
        wait_for(lambda: "reasons" not in service.get_json("/health"))


def test_with_its_only_worker_stopped_the_replica_is_not_ready_but_alive() -> None:
    with running() as service:
        service.workers[0].send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        status, body = service.get("/health")
        # Not even the first one waits until the worker is killed, after 5 s.
        assert time.monotonic() - begun < 4.0
        assert (status, json.loads(body)["status"]) == (503, "restarting")
        assert service.get("/livez")[0] == 200
        service.wait_ready()


def test_a_stopped_inference_process_is_replaced_within_seconds_and_health_says_so() -> None:
    with running() as service:
        victim = service.inference
        victim.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        seen = set()
        while not is_dead(victim):
            assert time.monotonic() - begun < 15
            seen.add(service.get("/health")[0])
            time.sleep(0.01)
        assert time.monotonic() - begun < 4.0
        assert 503 in seen | {service.get("/health")[0]}
        service.wait_ready()
        assert service.metric("object_detection_process_restarts_total", role="inference") == 1


def test_a_stopped_observer_is_replaced() -> None:
    with Service({}) as service:
        wait_for(lambda: service.get_json("/health")["processes"]["observer"] == "ok")
        victim = service.observer
        victim.send_signal(signal.SIGSTOP)
        wait_for(lambda: is_dead(victim), timeout_s=15)
        wait_for(lambda: service.get_json("/health")["processes"]["observer"] == "ok")
        assert service.metric("object_detection_process_restarts_total", role="observer") == 1
        assert service.metric("object_detection_process_restarts_total", role="worker") == 0


def test_a_stopped_supervisor_costs_nobody_an_answer_and_is_told() -> None:
    with running(WORKERS="2") as service:
        service.signal(signal.SIGSTOP)
        try:
            wait_for(lambda: service.get_json("/health")["processes"]["supervisor"] == "silent", timeout_s=15)
            assert service.get("/health")[0] == 200
            assert service.get("/livez")[0] == 200
        finally:
            service.signal(signal.SIGCONT)
        wait_for(lambda: service.get_json("/health")["processes"]["supervisor"] == "ok")
        assert service.metric("object_detection_process_restarts_total") == 0


def test_a_group_that_was_suspended_as_a_whole_goes_on() -> None:
    with Service({}) as service:
        group = [service.supervisor, *service.supervisor.children()]
        for process in group:
            process.send_signal(signal.SIGSTOP)
        time.sleep(7.0)
        for process in reversed(group):  # the supervisor last: it must not judge the others too early
            process.send_signal(signal.SIGCONT)
        time.sleep(2.0)
        assert [process for process in group if is_dead(process)] == []
        for process in group:
            process.send_signal(signal.SIGSTOP)
        time.sleep(6.0)
        for process in group:  # and first: the others have some time
            process.send_signal(signal.SIGCONT)
        time.sleep(2.0)
        assert [process for process in group if is_dead(process)] == []
        assert service.metric("object_detection_process_restarts_total") == 0


def test_a_drain_does_not_wait_for_a_stopped_worker() -> None:
    with running(WORKERS="2", DRAIN_TIMEOUT_S="20") as service:
        service.workers[0].send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - begun < 15


def test_stopped_decoders_and_their_server_are_replaced_when_there_is_work() -> None:
    with running() as service:
        # A fork server that is still starting gets more time.
        time.sleep(20.5)
        stopped = [
            p for p in service.supervisor.children(recursive=True) if "decoding" in " ".join(p.cmdline())
        ]
        assert len(stopped) >= 2
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        image = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()

        def served() -> bool:
            client = http.client.HTTPConnection("127.0.0.1", service.port, timeout=15)
            with contextlib.closing(client):
                client.request("POST", "/v1/predict", image, {"Content-Type": "image/jpeg"})
                return client.getresponse().status == 200

        begun = time.monotonic()
        wait_for(served)
        assert time.monotonic() - begun < 20
        wait_for(lambda: all(is_dead(process) for process in stopped))
        assert service.metric("object_detection_process_restarts_total") == 0
