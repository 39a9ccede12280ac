"""Tests the log of a real service when its reader stalls, its libraries print and its processes crash."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.helpers.service import ROOT, Service, quick_models
from tests.helpers.waiting import wait_for


def print_in(process: psutil.Process, data: bytes) -> None:
    """Write to a process's standard error, as a library in that process would."""
    with open(f"/proc/{process.pid}/fd/2", "wb", buffering=0) as output:  # noqa: PTH123 - a descriptor
        output.write(data)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({"SAMPLING": "False"}) as running:
        yield running


def entries(service: Service) -> list[dict[str, Any]]:
    """Return the lines of the log so far that are written completely."""
    return [json.loads(line) for line in service.log.rpartition("\n")[0].splitlines()]


def test_what_libraries_print_is_json_and_one_line_a_second(service: Service) -> None:
    (worker,) = service.workers
    begun = time.monotonic()
    for number in range(2000):
        print_in(worker, b"libpng warning: iCCP: known incorrect sRGB profile %d\n" % number)
    print_in(worker, b"a line that breaks \xff\xfe\xe2\x80\xa8 off\n\x1e{not json}\n")
    wait_for(lambda: "not json" in service.log)
    took_s = time.monotonic() - begun
    warnings = [
        entry for entry in entries(service) if entry["logger"] == "native" and "libpng" in entry["message"]
    ]
    assert {entry["process"] for entry in warnings} == {"worker-0"}
    assert 1 <= len(warnings) <= 1 + took_s
    wait_for(
        lambda: service.metric("object_detection_log_lines_dropped_total", reason="limit") >= 1900 - took_s
    )


def test_a_crashing_interpreter_is_told_whole(service: Service) -> None:
    (worker,) = service.workers
    print_in(worker, b"Fatal Python error: Segmentation fault\n\nCurrent thread 0x01:\n  File x\n")
    worker.kill()
    wait_for(lambda: "signal SIGKILL" in service.log)
    wait_for(lambda: "Current thread" in service.log)
    crash = next(entry["message"] for entry in entries(service) if "Fatal" in entry["message"])
    assert crash.splitlines()[-1] == "  File x"


@contextlib.contextmanager
def unread_service() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a service whose standard error is a full pipe; yield its process and the end to read from."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    own = {"HOST": "127.0.0.1", "PORT": "0", "SAMPLING": "False", "LOG_LEVEL": "debug"}
    environment = os.environ | quick_models() | own
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer", "serve"], cwd=ROOT, env=environment, stderr=writer
    )
    os.close(writer)
    try:
        yield process, reader
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(reader)


def test_a_stalled_reader_stops_neither_the_start_nor_the_drain() -> None:
    with unread_service() as (process, _):
        supervisor = psutil.Process(process.pid)
        wait_for(lambda: _port(supervisor) and _status(_port(supervisor)) == 200, timeout_s=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_a_service_that_cannot_start_ends_although_nobody_reads_why() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    environment = os.environ | {"HOST": "192.0.2.1", "PORT": "0", "ALLOW_ANONYMOUS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer", "serve"], cwd=ROOT, env=environment, stderr=writer
    )
    assert process.wait(timeout=60) == 3
    os.close(reader)
    os.close(writer)


def _port(supervisor: psutil.Process) -> int:
    for connection in supervisor.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN:
            return int(connection.laddr.port)
    return 0


def _status(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_a_wrong_setting_is_told_in_the_format_that_was_asked_for() -> None:
    for log_format in ("json", "text"):
        environment = os.environ | {"LOG_FORMAT": log_format, "WORKERS": "many"}
        done = subprocess.run(
            [sys.executable, "-m", "streamer", "serve"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "WORKERS" in done.stderr
        if log_format == "json":
            assert all("WORKERS" in json.loads(line)["message"] for line in done.stderr.splitlines()[:1])
            assert [json.loads(line) for line in done.stderr.splitlines()]
