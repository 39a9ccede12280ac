"""Tests what an operator sees when the service starts, refuses to start or drains: messages, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.helpers.media import images
from tests.helpers.model_factory import null_model
from tests.helpers.service import ROOT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient


@pytest.fixture(scope="module")
def null(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return null_model(tmp_path_factory.mktemp("models") / "null.onnx")


@pytest.fixture
def idle(null: Path) -> Iterator[Service]:
    with Service({"MODEL_V1_PATH": str(null), "DRAIN_DELAY_S": "1"}) as service:
        yield service


def refused(**settings: str) -> tuple[int, str]:
    """Start a service that must refuse to run; return its exit code and its standard error."""
    environment = os.environ | {"HOST": "127.0.0.1", "PORT": "0", "LOG_FORMAT": "text"} | settings
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "serve"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed() -> None:
    code, text = refused(PORT="http")
    assert code == 2
    assert "PORT='http'" in text


def test_without_a_model_it_says_how_to_get_one(tmp_path: Path) -> None:
    # A checkout may hold models that its user downloaded, so this imitates an installation without models.
    code = (
        "import sys; from pathlib import Path;"
        "from streamer.cli import main; from streamer.config import settings;"
        f"settings.MODELS_DIR = Path({str(tmp_path)!r}); sys.exit(main.main(['serve', '--port', '0']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert "MODEL_V1_PATH" in done.stderr
    assert "docs/models.md" in done.stderr


def test_a_port_in_use_is_said_before_anything_is_loaded(null: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = refused(PORT=str(port), MODEL_V1_PATH=str(null))
    assert code == 3
    assert f"127.0.0.1:{port}" in text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (b"<!doctype html><html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        (b"\x08\x07" + b"\xff" * 500, "truncated, damaged or not ONNX"),
    ],
)
def test_a_model_that_is_none_is_refused_with_its_own_code(
    tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "detector.onnx"
    path.write_bytes(content)
    code, text = refused(MODEL_V1_PATH=str(path))
    assert code == 4
    assert str(path) in text
    assert "expected" in text
    assert found in text


def test_a_device_that_is_not_there_is_never_replaced_by_the_cpu(null: Path) -> None:
    code, text = refused(MODEL_V1_PATH=str(null), DEVICE="openvino")
    assert code == 5
    assert "DEVICE is 'openvino'" in text


def _tell_supervisor(service: Service) -> None:
    service.signal(signal.SIGTERM)


def _tell_everybody(service: Service) -> None:
    """Send SIGTERM to all processes, as systemd and shells do, in the worst order: the supervisor last."""
    for process in [*service.supervisor.children(recursive=True), service.supervisor]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended because its parent got the signal before
            process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("tell", [_tell_supervisor, _tell_everybody])
def test_a_drain_finishes_what_was_accepted_and_tells_streams_when_to_return(
    idle: Service, tell: Callable[[Service], None]
) -> None:
    image = images(1)[0]

    async def through_the_drain() -> tuple[list[int], dict[str, object], tuple[int, str]]:
        statuses: list[int] = []
        async with (
            aiohttp.ClientSession() as session,
            WireClient(f"{idle.ws_url}/v1/stream") as client,
        ):
            await client.hello()

            async def post_until_refused() -> None:
                while True:
                    try:
                        async with session.post(f"{idle.http_url}/v1/predict", data=image) as answer:
                            await answer.read()
                            statuses.append(answer.status)
                    except aiohttp.ClientOSError:
                        return  # the port is closed: the service refused or never accepted this connection

            posting = asyncio.create_task(post_until_refused())
            await asyncio.sleep(0.2)
            tell(idle)
            bye = await client.receive("bye")
            closed = await client.closed()
            await asyncio.wait_for(posting, 60)
        return statuses, bye, closed

    statuses, bye, closed = asyncio.run(through_the_drain())
    assert set(statuses) == {200}, "every accepted POST was answered"
    assert isinstance(bye["reconnect_ms"], int)
    assert closed[0] == 1012
    assert idle.wait() == 0


def test_health_says_draining_while_requests_are_still_served(null: Path) -> None:
    # The delay is longer than an answer takes on a busy machine.
    with Service({"MODEL_V1_PATH": str(null), "DRAIN_DELAY_S": "4"}) as service:
        assert service.get_json("/health")["status"] == "ok"
        service.signal(signal.SIGTERM)
        while (answer := service.get("/health"))[0] != 503:
            assert service.alive, "it has ended without saying that it drains"
        assert json.loads(answer[1])["reasons"] == ["this replica is shutting down"]
        assert service.wait() == 0


def test_the_last_line_of_the_start_says_what_to_open(idle: Service) -> None:
    wait_for(lambda: "ready, open" in idle.log, "the last line")
    # On a busy machine the service may write about something else since.
    entries = [json.loads(line) for line in idle.log.rpartition("\n")[0].splitlines()]
    lines = [(entry["level"], entry["message"]) for entry in entries]
    place = lines.index(("info", f"ready, open http://127.0.0.1:{idle.port}/"))
    assert all("listening on" not in text for _, text in lines[place:])
    assert idle.get("/health")[0] == 200


def test_ctrl_c_stops_without_the_delay_and_with_code_0(idle: Service) -> None:
    assert idle.stop(signal.SIGINT) == 0


def test_a_known_model_is_downloaded_verified_and_served(null: Path, tmp_path: Path) -> None:
    for folder in ("inference", "streamer"):  # copy the code, to give it its own list of known models
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    release = tmp_path / "release"
    release.mkdir()
    shutil.copy(null, release / "tiny.onnx")
    entry = {
        "name": "tiny",
        "title": "Tiny",
        "family": "yolox",
        "input": {"width": 64, "height": 64},
        "classes": 80,
        "licence": "CC0-1.0",
        "bytes": null.stat().st_size,
        "sha256": hashlib.sha256(null.read_bytes()).hexdigest(),
    }

    def known(sha256: str) -> None:
        address = f"http://127.0.0.1:{server.server_port}"
        listed = entry | {"sha256": sha256, "url": f"{address}/tiny.onnx", "source": f"{address}/"}
        models.mkdir(exist_ok=True)
        (models / "catalogue.json").write_text(json.dumps({"version": 1, "models": [listed]}))

    models = tmp_path / "models"
    handler = partial(SimpleHTTPRequestHandler, directory=str(release))
    environment = os.environ | {"SAMPLES_DIR": str(tmp_path / "samples"), "DRAIN_DELAY_S": "0"}
    command = [sys.executable, "-m", "streamer", "serve", "--model", "tiny", "--port", "0", "--no-sampling"]
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        known("0" * 64)
        start = partial(subprocess.Popen, command, cwd=tmp_path, env=environment, text=True)
        with start(stderr=subprocess.PIPE) as refused_one:
            assert refused_one.stderr is not None
            text = refused_one.stderr.read()
        assert refused_one.returncode == 3
        assert "expected sha256 0000" in text
        assert "streamer: --model tiny: the download has failed" in text
        assert not (models / "tiny.onnx").exists()
        known(str(entry["sha256"]))
        with start(stderr=subprocess.PIPE) as service:
            assert service.stderr is not None
            address = next(line for line in service.stderr if "ready, open" in line)
            url = re.search(r"http://127\.0\.0\.1:\d+/", address)
            assert url is not None
            with urllib.request.urlopen(f"{url[0]}health", timeout=60) as answer:  # noqa: S310 - loopback
                served = json.load(answer)["models"]
            service.send_signal(signal.SIGINT)
            service.stderr.read()
        server.shutdown()
    assert service.returncode == 0
    assert [(version, model["name"]) for version, model in served.items()] == [("v1", "tiny")]
    assert json.loads((models / "tiny.json").read_text())["licence"] == "CC0-1.0"


def test_no_secret_stands_on_a_command_line(null: Path) -> None:
    secrets = {"API_KEYS": "dummy-key-1,dummy-key-2", "TURN_SECRET": "dummy-turn-secret"}
    with Service({"MODEL_V1_PATH": str(null)} | secrets) as service:
        # Worker, inference process and its fork server, sampling process, and the processes for decoding, of
        # which some start after the service is ready.
        wait_for(lambda: len(service.supervisor.children(recursive=True)) >= 7, "every process")
        for process in service.supervisor.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                assert not any("dummy" in word for word in process.cmdline())
        # The service still applies the keys.
        assert service.get("/v1/webrtc")[0] == 401


def test_several_workers_share_one_port_and_one_inference_process(null: Path) -> None:
    with Service({"MODEL_V1_PATH": str(null), "WORKERS": "2"}) as service:
        assert len(service.workers) == 2
        assert len(service.inference_server.children()) == 1
        # The other worker may still be starting its decoders.
        wait_for(lambda: all(service.get("/health")[0] == 200 for _ in range(20)), "both are ready")
        for _ in range(40):  # each opens a new connection, and the kernel spreads these over the workers
            assert service.get("/health")[0] == 200
        assert service.metric("object_detection_inference_ready") == 1
