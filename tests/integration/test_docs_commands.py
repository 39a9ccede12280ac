"""Tests that all programs and commands in README and user documentation run and do what the text says."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from streamer.cli import models_files
from tests.e2e.webrtc_tools import answers_stun, free_udp_port, program
from tests.helpers.documented import DEFAULT_ADDRESS, Block, Reader, blocks, make_workplace
from tests.helpers.ports import free_port
from tests.helpers.service import PATIENT, ROOT, Service
from tests.helpers.waiting import wait_for

PAGES = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "cameras",
            "client",
            "configuration",
            "drift",
            "faq",
            "http",
            "integrations",
            "models",
            "own-model",
            "protocol",
            "sampling",
            "split",
            "training",
            "versions",
            "webrtc",
        )
    ),
]
#: Patterns of commands that do not run here. The values say why not, or which test runs them instead.
ELSEWHERE = {
    r"^([A-Z0-9_]+=\S+ )*make (serve|test)\b": "tests/deploy/test_install.py, and CI itself",
    r"models pull ": "a download; tests/integration/test_models_pull.py",
    r"streamer serve ": "runs until Ctrl-C; tests/e2e/test_lifecycle.py",
    r"^streamer evaluate set/ models/own\.onnx ": "a trained model; tests/unit/test_evaluation.py",
    r"^streamer (train|promote) ": "minutes, and PyTorch; tests/training/test_own_model.py",
    r"^streamer versions ": "a second model; tests/integration/test_version_changes.py",
    r"^streamer drift evaluate ": "days of rows; tests/unit/test_drift_evaluation.py",
    r"^yolo export |^pip install ": "packages of others",
    r"^python examples/forward\.py ": "below, with a broker and a webhook of the test",
    r"^docker ": "tests/deploy/test_image.py and test_compose.py",
    r"^streamer push 0 |^\.venv/bin/streamer push 0 ": "a camera; tests/unit/test_client_sources.py",
    r" --show$": "a page that stays until Ctrl-C; tests/e2e/test_push.py",
    r"^streamer push /dev/video0 ": "a camera; tests/unit/test_client_cameras.py",
    r"rtsp://": "a camera; tests/integration/test_cameras.py",
    r"^streamer push http://\S+/jpg ": "a camera; tests/unit/test_client_camera_servers.py",
    r"/reference/update$": "hours of measurements; tests/integration/test_drift.py",
    r"/v1/whip/SESSION/results$": "a session; tests/integration/test_whip_route.py",
    r"turnserver\b": "below",
}


def shell_commands(page: Path) -> list[str]:
    return [command for block in blocks(page, "sh") for command in block.commands()]


def is_tried_elsewhere(command: str) -> bool:
    return any(re.search(pattern, command) for pattern in ELSEWHERE)


def identify(value: Path | Block) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else value.place


@pytest.fixture(scope="module")
def bundled() -> Iterator[Service]:
    """Yield a service with the models of the project, as `make serve` starts it."""
    # Disable larger batches, because their warm-up takes seconds.
    with Service(PATIENT | {"BATCH_MAX": "1"}, bundled=True) as service:
        yield service


@pytest.fixture
def reader(bundled: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("SAMPLES_DIR", str(tmp_path / "samples"))
    monkeypatch.setattr(models_files, "TIMING_S", 0.05)
    return Reader(make_workplace(tmp_path), f"127.0.0.1:{bundled.port}", monkeypatch)


@pytest.mark.parametrize(
    "program", [block for page in PAGES for block in blocks(page, "python")], ids=identify
)
def test_every_program_runs_to_its_end(
    reader: Reader, program: Block, capsys: pytest.CaptureFixture[str]
) -> None:
    reader.run_program(program)
    shown = capsys.readouterr().out
    if "print(" in program.text:
        assert re.search(r"barcode|qr_code|aztec|data_matrix|pdf417|\d", shown), shown


@pytest.mark.parametrize("page", [page for page in PAGES if shell_commands(page)], ids=identify)
def test_every_command_succeeds(reader: Reader, page: Path) -> None:
    for command in shell_commands(page):
        if not is_tried_elsewhere(command):
            assert reader.run_command(command) == 0, command


def test_the_turn_server_starts_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program("turnserver", "coturn")
    monkeypatch.setenv("TURN_SECRET", "dummy")
    write, start = [
        command for command in shell_commands(ROOT / "docs" / "webrtc.md") if "turnserver" in command
    ]
    subprocess.run(["bash", "-c", write], cwd=tmp_path, check=True)
    configuration = tmp_path / "turnserver.conf"
    assert configuration.read_text() == "static-auth-secret=dummy\n"
    assert configuration.stat().st_mode & 0o777 == 0o600
    port = free_udp_port()
    here = ["-L", "127.0.0.1", "-p", str(port), "--log-file", "stdout", "--pidfile", "pid", "--userdb", "db"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*shlex.split(start.replace("SERVICE_IP", "127.0.0.1")), *here],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
        )
        try:
            wait_for(lambda: process.poll() is not None or answers_stun(port), "an answer of coturn")
            assert process.poll() is None, (tmp_path / "log").read_text()[-1000:]
        finally:
            process.terminate()
            process.wait(60)


def test_what_runs_elsewhere_is_shown_somewhere() -> None:
    shown = [command for page in PAGES for command in shell_commands(page)]
    for pattern in ELSEWHERE:
        assert any(re.search(pattern, command) for command in shown), pattern
    assert sum(not is_tried_elsewhere(command) for command in shown) > 10


def test_the_notebook_runs_cell_by_cell(
    bundled: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the cells without Jupyter; a fake module collects what they would display."""
    displayed: list[bytes] = []
    display = types.ModuleType("IPython.display")
    display.Image = displayed.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.chdir(make_workplace(tmp_path).joinpath("photos"))
    cells = json.loads((ROOT / "examples" / "detect.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "saved without its outputs"
            source = "".join(cell["source"]).replace(DEFAULT_ADDRESS, f"127.0.0.1:{bundled.port}")
            exec(compile(source, f"cell {number}", "exec"), names)  # noqa: S102 - a program of ours
    assert [image[:2] for image in displayed] == [b"\xff\xd8"]
    shown = capsys.readouterr().out
    assert "codes_v1 found" in shown
    assert re.search(r"track 1: \w+ from 0\.00 s", shown)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """Run a real MQTT broker; yield its port."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("needs mosquitto, which is not here")
    port = free_port()
    process = subprocess.Popen([program, "-p", str(port)], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: can_connect(port))
        yield port
    finally:
        process.terminate()
        process.wait(60)


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def forward_command(receiver: str) -> str:
    """Return the command in `docs/integrations.md` whose receiver begins with ``receiver``."""
    commands = shell_commands(ROOT / "docs" / "integrations.md")
    (found,) = [command for command in commands if f"forward.py sample --to {receiver}" in command]
    return found


def test_objects_are_published_for_home_assistant(reader: Reader, broker: int) -> None:
    received: dict[str, list[str]] = {}
    retained: dict[str, bool] = {}
    subscriber = Client(CallbackAPIVersion.VERSION2)

    def keep(_client: Client, _data: object, message: MQTTMessage) -> None:
        received.setdefault(message.topic, []).append(message.payload.decode())
        retained[message.topic] = message.retain

    subscribed = threading.Event()
    subscriber.on_message = keep
    subscriber.on_subscribe = lambda *_: subscribed.set()
    subscriber.connect("127.0.0.1", broker)
    subscriber.subscribe("#")
    subscriber.loop_start()
    try:
        assert subscribed.wait(60)
        command = forward_command("mqtt://").replace("mqtt://127.0.0.1/", f"mqtt://127.0.0.1:{broker}/")
        assert reader.run_command(f"{command} --url http://{reader.address}") == 0
        wait_for(lambda: received.get("vision/belt/status", [])[-1:] == ["offline"])
        assert received["vision/belt/status"] == ["online", "offline"]
        assert int(received["vision/belt/qr_code"][-1]) > 0
        announced = json.loads(received["homeassistant/sensor/vision_belt_qr_code/config"][-1])
        assert announced["state_topic"] == "vision/belt/qr_code"
        assert announced["availability_topic"] == "vision/belt/status"
        # A later subscriber also receives all topics, because the messages are retained.
        retained.clear()
        subscriber.unsubscribe("#")
        subscriber.subscribe("#")
        wait_for(lambda: "homeassistant/sensor/vision_belt_barcode/config" in retained)
        assert all(retained.values())
    finally:
        subscriber.disconnect()
        subscriber.loop_stop()


def test_objects_are_posted_to_a_webhook(reader: Reader) -> None:
    posted: list[tuple[str, dict[str, Any]]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, json.loads(body)))
            # The first request fails; the program must still post the next count.
            self.send_response(500 if len(posted) == 1 else 200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base names it so
            """Suppress the log of the base class."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = forward_command("http://").replace("127.0.0.1:8123", f"127.0.0.1:{server.server_port}")
        command = command.replace("--classes qr_code", "--classes qr_code,barcode")
        assert reader.run_command(f"{command} --url http://{reader.address}") == 0
        server.shutdown()
    assert {path for path, _ in posted} == {"/api/webhook/belt"}
    assert sorted(body["label"] for _, body in posted) == ["barcode", "qr_code"]
    assert all(body["camera"] == "belt" and body["count"] > 0 for _, body in posted)
