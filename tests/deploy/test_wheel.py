"""Tests that the wheel holds code and assets under two packages, and nothing that only the checkout needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.helpers.service import ROOT

#: Folders of the checkout, and where their files lie in the wheel.
ASSETS = {"static": "streamer/static", "models": "streamer/models", "data": "streamer/data"}
FOLDERS = ("inference", "streamer", *ASSETS)
#: Suffixes of the files of code and assets.
SHIPPED = {".py", ".typed", ".html", ".css", ".js", ".svg", ".onnx", ".json", ".mp4", ".jpg", ".md"}


def tracked() -> set[str]:
    """Return the files of the checkout that may be in the wheel."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs a git checkout, to know which files belong to the project")
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}


def place(name: str) -> str | None:
    """Return where a file of the checkout lies in the wheel; None for a file that is not packaged."""
    top, _, rest = name.partition("/")
    if top not in ASSETS:
        return name if PurePosixPath(name).suffix in SHIPPED else None
    # The code in these folders makes models and clips; it and its data are used only from the checkout.
    return None if name.endswith(".py") or name.startswith("models/training/") else f"{ASSETS[top]}/{rest}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """Build the wheel; return its path and the names of the checkout's files that it was built from."""
    folder = tmp_path_factory.mktemp("wheel")
    names = tracked()
    source = folder / "source"
    # Build from a copy, which lacks the files that git ignores.
    for name in (*names, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    # Add files that a user may have downloaded or collected.
    (source / "models" / "yolox_nano.onnx").write_bytes(b"")
    (source / "data" / "samples").mkdir()
    (source / "data" / "samples" / "one.jpg").write_bytes(b"")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "-w", str(folder), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("real_time_vision_api-*.whl")
    return wheel, names


def test_it_holds_what_is_served_and_imported_and_nothing_else(built: tuple[Path, set[str]]) -> None:
    wheel, names = built
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {target for target in map(place, names) if target is not None}
    assert {
        "streamer/static/index.html",
        "streamer/models/codes_v1.onnx",
        "streamer/data/sample.mp4",
    } <= wanted
    assert packed == wanted


def test_an_installed_package_finds_its_assets(built: tuple[Path, set[str]], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[0]) as opened:
        opened.extractall(tmp_path)
    code = (
        "from streamer.assets import MODELS_DIR, SAMPLE_FILE, STATIC_DIR; import streamer;"
        "print(streamer.__file__, STATIC_DIR / 'index.html', MODELS_DIR / 'codes_v1.onnx', SAMPLE_FILE)"
    )
    # Import the unpacked wheel, not the checkout: without the current folder and site-packages on the path.
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = [Path(word) for word in done.stdout.split()]
    assert len(found) == 4
    for path in found:
        assert path.is_relative_to(tmp_path)
        assert path.is_file()
