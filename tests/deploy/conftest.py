"""Fixtures for the tests of several replicas and of the chart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import chart_tools
from tests.deploy.chart import Chart, copy_chart
from tests.deploy.image import DRIFT_TAG, Images, require_tools
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


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, full: bool) -> Iterator[Images]:
    """Build the image `cpu`; skip the test without ``--full``."""
    if not full:
        pytest.skip(
            "builds the image, some four minutes: `make test ARGS='--full tests/deploy/test_image.py'`"
        )
    require_tools()
    images = Images()
    with images.alone():
        images.import_base()
        images.build(tmp_path_factory.mktemp("build"))
        yield images


@pytest.fixture(scope="session")
def drift_images(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Build the image `cpu-drift` too, which takes some six minutes."""
    images.build(tmp_path_factory.mktemp("build"), "drift", DRIFT_TAG)
    return images
