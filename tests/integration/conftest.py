"""Fixtures of several integration tests: no proxies, keyed services, and what `streamer models` works on."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from streamer.cli import models_files
from streamer.cli.main import main
from streamer.decoding.refused_digests import RefusedDigests
from tests.helpers.blob_images import write_blob_images
from tests.helpers.decoders.bench import Bench
from tests.helpers.keyed_requests import ANN, BOB
from tests.helpers.model_factory import Input, blob_model, null_model
from tests.helpers.model_pulls import BODY
from tests.helpers.optimise_command import METADATA, Optimise
from tests.helpers.release_server import Server
from tests.helpers.service import PATIENT, Service
from tests.helpers.stores.registry import make_layout


@pytest.fixture(autouse=True)
def _no_proxy_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Run a server of one model."""
    async with Server(BODY) as running:
        yield running


@pytest.fixture
def no_logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the logins of the user who runs the tests."""
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the layout of an artifact with one model and notes, and its digest."""
    folder = tmp_path_factory.mktemp("layout")
    return folder, make_layout(folder, {"Parcels.onnx": BODY, "notes.txt": b"hello"})


# -- services ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def null_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a model that finds nothing."""
    return null_model(tmp_path_factory.mktemp("models") / "null.onnx")


@pytest.fixture(scope="module")
def keyed(null_path: Path) -> Iterator[Service]:
    """Run a service with two workers and two keys."""
    settings = {"MODEL_V1_PATH": str(null_path), "API_KEYS": f"{ANN},{BOB}", "WORKERS": "2"}
    with Service(settings | PATIENT) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session whose requests have a connection each, so that either worker may answer."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


# -- streamer models optimize ------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the path of a model that finds blobs."""
    return blob_model(tmp_path / "blob.onnx", Input(metadata=METADATA))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with images of blobs."""
    return write_blob_images(tmp_path / "images")


@pytest.fixture
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command measure times only briefly, for tests that check none."""
    monkeypatch.setattr(models_files, "TIMING_S", 0.05)


@pytest.fixture
def optimise(capsys: pytest.CaptureFixture[str]) -> Optimise:
    """Return a function that runs the command."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = main(["models", "optimize", "--quiet", "--json", *map(str, arguments)])
        said = capsys.readouterr()
        return code, json.loads(said.out) if not code else {"error": said.err}

    return run


# -- decoders -----------------------------------------------------------------------------------------


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Run a pool of two decoder processes."""
    bench = Bench(RefusedDigests(tmp_path / "digests"))
    try:
        await bench.start()
        yield bench
    finally:
        bench.pool.close()
