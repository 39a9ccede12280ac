"""Tests what the Makefile prepares: its installer, with uv or pip, and the environment of its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.install import uv_environment
from tests.deploy.rules import ROOT


def test_uv_is_told_what_pip_is_configured_with() -> None:
    listed = [
        ":env:.cert='/ca.pem'",
        "global.extra-index-url='file:///one file:///two'",
        "global.find-links='/wheels /more'",
        "global.index-url='file:///simple'",
        "global.timeout='180'",
        "freeze.cert='/other.pem'",
    ]
    assert uv_environment(listed, {"HOME": "/home"}) == {
        "SSL_CERT_FILE": "/ca.pem",
        "UV_INDEX": "file:///one file:///two",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_DEFAULT_INDEX": "file:///simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "HOME": "/home",
    }


def test_pips_environment_wins_over_its_files_and_uvs_own_over_both() -> None:
    listed = [":env:.index-url='file:///env'", "global.index-url='file:///file'"]
    assert uv_environment(listed, {})["UV_DEFAULT_INDEX"] == "file:///env"
    own = uv_environment(listed, {"UV_DEFAULT_INDEX": "file:///own", "UV_INDEX_STRATEGY": "first-index"})
    assert (own["UV_DEFAULT_INDEX"], own["UV_INDEX_STRATEGY"]) == ("file:///own", "first-index")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return a virtual environment with a fake pip that only records its arguments."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (pip,) = (folder / "lib").glob("python*/site-packages")
    (pip / "pip.py").write_text(
        "import sys\n"
        f"print(*sys.argv[1:], file=open({str(tmp_path / 'pip.txt')!r}, 'a'))\n"
        "sys.exit('uv' in sys.argv)\n"
    )
    return folder


def install(environment: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment / "bin" / "python", ROOT / "deploy" / "install.py", "-e", "."],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("uv", ["absent", "fails"])
def test_pip_installs_what_uv_cannot(environment: Path, uv: str) -> None:
    if uv == "fails":
        shutil.copy("/bin/false", environment / "bin" / "uv")
    done = install(environment)
    assert done.returncode == 0, done.stderr
    assert "-- installing with pip" in done.stdout
    asked = (environment.parent / "pip.txt").read_text().splitlines()
    assert asked[-1] == f"--disable-pip-version-check install -c {ROOT / 'constraints.txt'} -e ."


def test_uv_installs_into_this_environment_at_the_pinned_versions(environment: Path) -> None:
    uv = environment / "bin" / "uv"
    uv.write_text('#!/bin/sh\necho "uv got: $*"\n')
    uv.chmod(0o755)
    done = install(environment)
    python = environment / "bin" / "python"
    assert f"uv got: pip install --python {python} -c {ROOT / 'constraints.txt'} -e .\n" in done.stdout
    # The installer called pip only to list its settings.
    asked = (environment.parent / "pip.txt").read_text()
    assert asked == "--disable-pip-version-check config list\n"


def test_the_commands_of_make_cache_bytecode() -> None:
    # `make` adds a target that prints the environment which the other targets get.
    command = ["make", "--no-print-directory", "--eval", "environment: ; @env", "environment"]
    given = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    assert "PYTHONUNBUFFERED=1" in done.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in done.stdout
