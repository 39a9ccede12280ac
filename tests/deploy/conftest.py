"""Fixtures of the tests of several replicas, and of the chart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy import chart_tools
from tests.deploy.chart import Chart, copy_chart
from tests.helpers.model_factory import null_model


@pytest.fixture(scope="session")
def null(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does nothing: what is tested here stands in front of the device."""
    return null_model(tmp_path_factory.mktemp("models") / "null.onnx")


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """The chart and a real helm; skips where helm cannot be fetched."""
    helm = chart_tools.helm()
    home = tmp_path_factory.mktemp("helm")
    return Chart(copy_chart(home), helm, home)
