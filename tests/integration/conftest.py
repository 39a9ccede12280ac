"""Fixtures of several integration tests: no proxies, and what models are pulled from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helpers.model_pulls import BODY
from tests.helpers.release_server import Server
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
