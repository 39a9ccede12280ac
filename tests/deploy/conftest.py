"""Fixtures for the tests of several replicas and of the chart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy import chart_tools
from tests.deploy.chart import Chart, copy_chart
from tests.helpers.model_factory import null_model


@pytest.fixture(scope="session")
def null(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a model that does nothing, because these tests do not depend on the results."""
    return null_model(tmp_path_factory.mktemp("models") / "null.onnx")


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """Return a copy of the chart with a real helm; skip the test if helm cannot be fetched."""
    helm = chart_tools.helm()
    home = tmp_path_factory.mktemp("helm")
    return Chart(copy_chart(home), helm, home)
