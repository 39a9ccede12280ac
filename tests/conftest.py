"""Fixtures shared by all tests: where shared media lie, and a real service as a subprocess."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers.service import Service

# Tests that load ONNX Runtime by themselves send nothing either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# A slow machine is no fault of the code under test.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Some tests have a form that takes minutes; it runs when it is asked for."""
    parser.addoption("--full", action="store_true", help="run the long form of tests that have one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of two folders as `alone`; files elsewhere have the mark if they need it."""
    for item in items:
        if item.path.parent in (ROOT / "tests/e2e", ROOT / "tests/faults"):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the long form was asked for."""
    return bool(pytestconfig.getoption("--full"))


ROOT = Path(__file__).resolve().parent.parent
#: Real models, photographs and videos for tests; beside the project, absent elsewhere.
SHARED = ROOT.parent / "shared"


def shared(path: str) -> Path:
    """Return a shared file, or skip the test with a clear word."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs ../shared/{path}, which is not here")
    return found


@pytest.fixture(scope="session")
def yolox_nano() -> Path:
    """COCO detector, 80 classes, 416 px, static batch 1."""
    return shared("models/yolox_nano.onnx")


@pytest.fixture(scope="session")
def yolov9t_ball() -> Path:
    """One-class detector, dynamic axes."""
    return shared("models/yolov9t_ball.onnx")


@pytest.fixture(scope="session")
def service(yolox_nano: Path, yolov9t_ball: Path) -> Iterator[Service]:
    """The real service with YOLOX-nano as v1 and YOLOv9-t as v2, shared by all tests that do not break it."""
    # Admission depends on the machine: tests of it have services of their own.
    variables = {"MODEL_V1_PATH": str(yolox_nano), "MODEL_V2_PATH": str(yolov9t_ball), "STREAM_MIN_FPS": "0"}
    running = Service(variables)
    with running:
        yield running


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see only the settings they make themselves."""
    for name in list(os.environ):
        if name in {"HOST", "PORT", "WORKERS", "DEVICE"} or name.startswith(
            (
                "MODEL_V",
                "API_KEYS",
                "ALLOW",
                "TRUSTED_",
                "METRICS_PORT",
                "JWT_",
                "STREAM_",
                "WEBRTC_",
                "ICE_",
                "TURN_",
                "UDP_PORT_",
                "PUBLIC_IP",
                "REPLICA_",
                "AWS_",
                "S3_",
                "SAMPL",
                "DRIFT",
                "REFERENCE_",
            )
        ):
            monkeypatch.delenv(name)
