"""Fixtures of the tests of several replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model_factory import null_model


@pytest.fixture(scope="session")
def null(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does nothing: what is tested here stands in front of the device."""
    return null_model(tmp_path_factory.mktemp("models") / "null.onnx")
