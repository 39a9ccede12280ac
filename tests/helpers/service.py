"""Runs ``streamer serve`` as a subprocess, as users do, and finds its processes."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.helpers.model_factory import null_model

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120.0
#: Longest wait for an answer to a GET.
ANSWER_TIMEOUT_S = 60.0
#: Settings with which a slow machine is no reason to refuse a POST.
PATIENT_POSTS = {"REQUEST_QUEUE_S": "60", "REQUEST_TIMEOUT_S": "60"}
#: Settings with which a service refuses no streams and images, drops no frames and gives up no connections
#: because the machine is slow.
PATIENT = PATIENT_POSTS | {
    "STREAM_MIN_FPS": "0",
    "STREAM_MAX_AGE_MS": "60000",
    "STREAM_HELLO_TIMEOUT_S": "60",
    "WEBRTC_CONNECT_TIMEOUT_S": "60",
}


@cache
def quick_models() -> dict[str, str]:
    """Return settings of two models that find nothing, which halve the start time of a service."""
    folder = Path(tempfile.mkdtemp(prefix="models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = str(null_model(folder / "null.onnx", size=64))
    return {"MODEL_V1_PATH": path, "MODEL_V2_PATH": path}


class Service:
    """Runs one replica on a free port. ``settings`` are environment variables that override its defaults.

    If the settings name no model, the service has two models that find nothing, or with ``bundled`` the
    models of the project.
    """

    def __init__(self, settings: dict[str, str], *, log_level: str = "info", bundled: bool = False) -> None:
        #: Whether many tests serve these models, so that none may leave its choice of versions beside them.
        shared_models = not any(name.startswith("MODEL_V") for name in settings)
        if not bundled and shared_models:
            settings = quick_models() | settings
        self._log = tempfile.NamedTemporaryFile("w+", prefix="service-", suffix=".log", delete=False)  # noqa: SIM115 - closed in stop()
        foreign = ("PROMETHEUS_", "AWS_", "S3_", "SAMPL", "DRIFT", "REFERENCE_")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        environment |= {"HOST": "127.0.0.1", "PORT": "0", "LOG_LEVEL": log_level, "LOG_FORMAT": "json"}
        # Samples of tests must not accumulate in the checkout.
        self._samples = tempfile.TemporaryDirectory(prefix="samples-")
        environment |= {"DRAIN_DELAY_S": "0.2", "SAMPLES_DIR": self._samples.name}
        environment |= {"REFERENCE_DATA_PATH": f"{self._samples.name}/reference.json"}
        if shared_models:
            environment["VERSIONS_STATE_FILE"] = f"{self._samples.name}/versions.json"
        environment |= settings
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamer", "serve"], cwd=ROOT, env=environment, stderr=self._log
        )
        self.port = 0

    # -- life cycle ------------------------------------------------------------------------------------

    def __enter__(self) -> Service:
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # SIGINT skips `DRAIN_DELAY_S`, the time in which load balancers notice a drain.
        self.stop(signal.SIGINT)

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until ``/health`` answers 200; raise AssertionError with the log if it does not in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(f"the service exited with {self._process.returncode}:\n{self.log}")
            if self.port == 0:
                self.port = self._find_port()
            elif self.get("/health")[0] == 200:
                return
            time.sleep(0.05)
        raise AssertionError(f"not ready after {timeout_s} s:\n{self.log}")

    def _find_port(self) -> int:
        for line in self.log.rpartition("\n")[0].splitlines():
            if "listening on" in line:
                return int(json.loads(line)["message"].split("with")[0].rsplit(":", 1)[1])
        return 0

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 40.0) -> int:
        """Send a signal and wait until the supervisor ends, or kill it; return the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if not self._log.closed:
            self._log.close()
            Path(self._log.name).unlink(missing_ok=True)
        self._samples.cleanup()
        return code

    def kill_all(self) -> None:
        """Kill the supervisor and all its descendants with SIGKILL."""
        processes = [self.supervisor, *self.supervisor.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(processes, timeout=10)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float = 120.0) -> int:
        """Wait for the supervisor to end; return its exit code."""
        return self._process.wait(timeout_s)

    # -- views ---------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """The log so far, without a last line that the service is still writing."""
        whole, newline, _ = Path(self._log.name).read_bytes().rpartition(b"\n")
        return (whole + newline).decode()

    @property
    def http_url(self) -> str:
        """Base URL for HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Base URL for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self._process.poll() is None

    @property
    def supervisor(self) -> psutil.Process:
        """The supervisor process."""
        return psutil.Process(self._process.pid)

    def children(self, module: str) -> list[psutil.Process]:
        """Return child processes whose command line contains ``module``."""
        found = []
        for child in self.supervisor.children():
            try:
                if module in child.cmdline():
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    @property
    def inference(self) -> psutil.Process:
        """The current inference process; if it has died, this waits for the next one."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(psutil.NoSuchProcess, ValueError):  # the fork server has just died, too
                (process,) = [each for each in self.inference_server.children() if not is_dead(each)]
                return process
            time.sleep(0.01)
        raise AssertionError(f"no inference process after {START_TIMEOUT_S} s:\n{self.log}")

    @property
    def engines(self) -> list[psutil.Process]:
        """The running inference processes of all engines."""
        servers = self.children("inference.engine.process")
        return [each for server in servers for each in server.children() if not is_dead(each)]

    @property
    def inference_server(self) -> psutil.Process:
        """The fork server of the inference process."""
        (process,) = self.children("inference.engine.process")
        return process

    @property
    def sampling_process(self) -> psutil.Process:
        """The current sampling process."""
        (process,) = self.children("streamer.sampling.process")
        return process

    @property
    def workers(self) -> list[psutil.Process]:
        """The current workers."""
        return self.children("streamer.server.worker")

    def get(self, path: str) -> tuple[int, bytes]:
        """GET a path; return status and body. The status is 0 if there is no answer."""
        try:
            with urllib.request.urlopen(self.http_url + path, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except (OSError, http.client.HTTPException):  # a process that is killed may leave half an answer
            return 0, b""

    def _answer(self, path: str) -> bytes:
        """GET a path until there is an answer, which a dying worker cannot give; return its body."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while time.monotonic() < deadline:
            status, body = self.get(path)
            if status:
                return body
            time.sleep(0.05)
        raise AssertionError(f"no answer from {path} after {ANSWER_TIMEOUT_S} s:\n{self.log}")

    def get_json(self, path: str) -> Any:
        """GET a path and parse its JSON. Raises AssertionError if no answer comes in a minute."""
        return json.loads(self._answer(path))

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels.

        Raises AssertionError if no answer comes in a minute.
        """
        total = 0.0
        for line in self._answer("/metrics").decode().splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total


def is_dead(process: psutil.Process) -> bool:
    """Return whether a process has ended; a zombie counts as ended."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # the process may vanish between the two calls
        return True
