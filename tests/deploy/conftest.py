"""Fixtures of the deployment tests."""

from __future__ import annotations

import pytest

from tests.deploy import chart_tools
from tests.deploy.chart import Chart, copy_chart


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """The chart and a real helm; skips where helm cannot be fetched."""
    helm = chart_tools.helm()
    home = tmp_path_factory.mktemp("helm")
    return Chart(copy_chart(home), helm, home)
