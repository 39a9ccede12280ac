"""Makes all recordings with one start of the service, and reads and writes the committed ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import tempfile
from pathlib import Path
from typing import Any

import streamer.client
from tests.helpers.model_factory import OBJECTS, null_model
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.recordings.client_library import describe_library
from tests.recordings.command_line import describe_commands
from tests.recordings.http_exchanges import Exchanges
from tests.recordings.metrics import describe_metrics
from tests.recordings.requests import IMAGE_MAX_BYTES, PAGE, key_file
from tests.recordings.websocket_sessions import record_sessions, record_shutdown, record_slow_sessions

FOLDER = Path(__file__).resolve().parent / "data"
#: Longest wait for metrics that are in the committed recording but not yet in `/metrics`, seconds.
METRICS_WAIT_S = 60.0
#: Metrics that are there only if the requests took long: a stream becomes a group of drift when it has rows,
#: and the sampling process publishes its groups every ten seconds.
_SOMETIMES_THERE = {"data_drift_detected"}
#: Names of the recordings; each is a file.
NAMES = ("http", "websocket", "metrics", "openapi", "commands", "client")


def record_all() -> dict[str, Any]:
    """Make all recordings of the current code and return them by name."""
    return record_service() | {
        "commands": describe_commands(),
        "client": describe_library(streamer.client),
    }


def record_service() -> dict[str, Any]:
    """Start a service and return its recordings by name, and its raw HTTP responses under ``answers``."""
    with (
        tempfile.TemporaryDirectory(prefix="recordings-") as folder,
        Service(_settings(Path(folder))) as service,
    ):
        return _record(service)


def _settings(folder: Path) -> dict[str, str]:
    """Return settings under which no answer depends on how fast the machine is."""
    keys = folder / "keys.json"
    keys.write_text(key_file())
    model = str(null_model(folder / "boxes.onnx", size=64, classes=2, objects=OBJECTS))
    return {
        "MODEL_V1_PATH": model,
        "MODEL_V2_PATH": model,
        "API_KEYS_FILE": str(keys),
        "ALLOWED_ORIGINS": PAGE,
        "IMAGE_MAX_BYTES": str(IMAGE_MAX_BYTES),
        "DEVICE": "cpu",
        "WORKERS": "1",
        "STREAM_MIN_FPS": "0",
        "STREAM_MAX_AGE_MS": "60000",
        "STREAM_HELLO_TIMEOUT_S": "15",
        "REQUEST_QUEUE_S": "60",
        "REQUEST_TIMEOUT_S": "60",
    }


def _record(service: Service) -> dict[str, Any]:
    wait_for(lambda: _is_settled(service), "every process to be ready")
    exchanges = Exchanges(service.port)
    http, websocket = asyncio.run(_talk(service, exchanges))
    # A metric appears with its first observation, which may come shortly after the answer.
    expected = read_recording("metrics").keys()
    with contextlib.suppress(AssertionError):
        wait_for(lambda: expected <= _metrics(service).keys(), timeout_s=METRICS_WAIT_S)
    metrics = _metrics(service)
    openapi = service.get_json("/openapi.json")
    openapi["info"]["version"] = "<version>"
    websocket["shutdown"] = asyncio.run(record_shutdown(service, lambda: service.signal(signal.SIGTERM)))
    return {"http": http, "websocket": websocket, "metrics": metrics, "openapi": openapi} | {
        "answers": exchanges.answers
    }


async def _talk(service: Service, exchanges: Exchanges) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the exchanges over HTTP and the sessions over WebSocket."""
    slow = asyncio.create_task(record_slow_sessions(service))
    http = await asyncio.to_thread(exchanges.record)
    return http, await record_sessions(service) | await slow


def _is_settled(service: Service) -> bool:
    """Return whether all processes have reported; some do so only after the service is ready."""
    processes = service.get_json("/health")["processes"]
    ready = {"ok"} >= {*processes.pop("workers"), *processes.values()}
    return ready and "groups" in service.get_json("/drift/status")


def _metrics(service: Service) -> dict[str, Any]:
    found = describe_metrics(service.get("/metrics")[1].decode())
    return {name: described for name, described in found.items() if name not in _SOMETIMES_THERE}


def read_recording(name: str) -> Any:
    """Return a committed recording, or an empty one if its file does not exist yet."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def as_committed(value: Any) -> Any:
    """Return a value as JSON would read it back from a file."""
    return json.loads(json.dumps(value))


def write_recording(name: str, value: Any) -> None:
    """Write a recording to its file in the folder of committed recordings."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    (FOLDER / f"{name}.json").write_text(text + "\n")
