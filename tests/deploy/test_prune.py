"""Tests what images leave out of their environment, and that the metadata of packages stays true."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from deploy.prune import KEPT, REMOVED, main, prune

FILES = {
    # Removed.
    "numpy/_core/tests/test_x.py": False,
    "pandas/tests/io/test_y.py": False,
    "cv2/__init__.pyi": False,
    "jupyterlab_plotly/nbextension/index.js": False,
    "aiohttp/_http_parser.pyx": False,
    "botocore/data/ec2/2016-11-15/service-2.json.gz": False,
    # Kept: code, and folders that only look like tests.
    "numpy/testing/__init__.py": True,
    "evidently/tests/__init__.py": True,
    "evidently/nbextension/static/index.js": True,
    "botocore/data/s3/2006-03-01/service-2.json.gz": True,
    "botocore/data/sts/2011-06-15/service-2.json.gz": True,
    "botocore/data/endpoints.json": True,
    "onnxruntime/transformers/onnx_utils.py": True,
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    record = tmp_path / "all-1.0.dist-info" / "RECORD"
    for name in [*FILES, "all-1.0.dist-info/METADATA"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    record.write_text("".join(f"{name},sha256=x,4\n" for name in FILES) + '"all-1.0.dist-info/RECORD",,\n')
    return tmp_path


def test_it_removes_what_is_listed_and_nothing_else(site: Path) -> None:
    sizes = prune(site)
    assert {name: (site / name).exists() for name in FILES} == FILES
    assert sum(sizes.values()) == 4 * sum(not kept for kept in FILES.values())


def test_the_record_of_a_package_names_the_files_that_there_are(site: Path) -> None:
    prune(site)
    lines = (site / "all-1.0.dist-info" / "RECORD").read_text().splitlines()
    kept = [f"{name},sha256=x,4" for name, stays in FILES.items() if stays]
    assert lines == [*kept, "all-1.0.dist-info/RECORD,,"]


def test_a_second_run_removes_nothing(site: Path) -> None:
    prune(site)
    assert sum(prune(site).values()) == 0


def test_every_pattern_names_something_that_is_installed_or_is_of_an_image_alone() -> None:
    """A pattern that no longer matches would make the image larger unnoticed."""
    here = Path(sysconfig.get_path("purelib"))
    unused = {
        pattern
        for patterns in REMOVED.values()
        for pattern in patterns
        if (here / pattern.partition("/")[0]).exists() and not any(here.glob(pattern))
    }
    assert unused == set()


@pytest.mark.parametrize("name", sorted(KEPT))
def test_what_botocore_needs_for_s3_and_its_credentials_is_where_it_is_looked_for(name: str) -> None:
    assert (Path(sysconfig.get_path("purelib")) / name).exists()


def test_without_a_folder_it_says_what_it_needs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert "name the folder site-packages" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert "removed" in capsys.readouterr().out
