"""Fixtures for all tests: paths of shared models and media, and a real service as a subprocess."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.service import PATIENT, Service

# Tests that load ONNX Runtime without the package `inference` also send no telemetry.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--full``, which runs the form of some tests that takes minutes."""
    parser.addoption("--full", action="store_true", help="run the long form of tests that have one")


def pytest_configure(config: pytest.Config) -> None:
    """Configure Hypothesis: the same examples in each run, and new ones with ``--full``.

    A slow machine is not a fault of the code under test, so examples have no deadline.
    """
    settings.register_profile(
        "project",
        deadline=None,
        derandomize=not config.getoption("--full"),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("project")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with a browser as `alone`; files whose tests measure something set the mark themselves.

    A browser and a service keep both cores of a small machine busy.
    """
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker("alone")


@pytest.fixture(scope="session")
def full(pytestconfig: pytest.Config) -> bool:
    """Return whether pytest runs with ``--full``."""
    return bool(pytestconfig.getoption("--full"))


ROOT = Path(__file__).resolve().parent.parent
#: Folder beside the project with real models, photographs and videos for tests. It may be absent.
SHARED = ROOT.parent / "shared"


def shared(path: str) -> Path:
    """Return the path of a shared file; skip the test, with a reason, if the file is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs ../shared/{path}, which is not here")
    return found


@pytest.fixture(scope="session")
def yolox_nano() -> Path:
    """Return the path of a COCO detector: 80 classes, 416 px, static batch size 1."""
    return shared("models/yolox_nano.onnx")


@pytest.fixture(scope="session")
def yolov9t_ball() -> Path:
    """Return the path of a detector of one class with dynamic axes."""
    return shared("models/yolov9t_ball.onnx")


@pytest.fixture(scope="session")
def service(yolox_nano: Path, yolov9t_ball: Path) -> Iterator[Service]:
    """Run a real service, with YOLOX-nano as v1 and YOLOv9-t as v2, for all tests that do not break it."""
    running = Service(PATIENT | {"MODEL_V1_PATH": str(yolox_nano), "MODEL_V2_PATH": str(yolov9t_ball)})
    with running:
        yield running


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove settings from the environment, so that tests see only the settings they make themselves."""
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
