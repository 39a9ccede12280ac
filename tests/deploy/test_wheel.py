"""The wheel holds all that is served and imported: code, page, models and sample."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.service import ROOT

FOLDERS = ("inference", "streamer", "static", "models", "data")
#: Packages and pages are made of these.
SHIPPED = {".py", ".typed", ".html", ".css", ".js", ".svg", ".onnx", ".json", ".mp4", ".jpg"}


def tracked() -> set[str]:
    """Return the files of the checkout that make up the packages."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("needs a git checkout, to know which files belong to the project")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    names = tracked()
    source = tmp_path / "source"
    # A copy: building leaves folders behind, and takes files that lie about.
    for name in (*names, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("real_time_vision_api-*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {name for name in names if Path(name).suffix in SHIPPED}
    assert {"static/index.html", "models/codes_v1.onnx", "data/sample.mp4"} <= wanted
    assert wanted - packed == set()
