"""Tests that every pinned package has a wheel for each platform and Python of the images that contain it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.install import uv_environment
from deploy.release import BUILDS
from tests.deploy.rules import ROOT

#: Platforms of the images as uv names them. The bases have glibc 2.36 or newer.
PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_36", "linux/arm64": "aarch64-manylinux_2_36"}
#: Python of the bases, by target of the Dockerfile.
PYTHONS = {"cpu": "3.11", "gpu": "3.12"}


def resolve(lock: Path, platform: str, python: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask the package index for the wheels of a lock file; skip the test if it cannot be reached."""
    listed = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    settings = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
    command = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--dry-run", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--target", str(folder), "-r", str(lock)]
    try:
        done = subprocess.run(
            [*command, "--python", sys.executable, "--python-version", python, "--python-platform", platform],
            env=uv_environment(settings, os.environ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index does not answer within two minutes")
    if any(
        text in done.stderr
        for text in ("Failed to fetch", "error sending request", "Connectivity is disabled")
    ):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip()[-300:]}")
    return done


@pytest.mark.parametrize(
    ("platform", "target"),
    sorted({(platform, build.target) for build in BUILDS.values() for platform in build.platforms}),
)
def test_each_platform_has_a_wheel_of_every_package(platform: str, target: str, tmp_path: Path) -> None:
    lock = ROOT / "constraints-hashed.txt"
    done = resolve(lock, PLATFORMS[platform], PYTHONS[target], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n + ") > 100


def test_onnx_runtime_for_cuda_12_has_wheels_for_x86_64_alone(tmp_path: Path) -> None:
    lock = ROOT / "constraints-cuda12.txt"
    done = resolve(lock, PLATFORMS["linux/amd64"], PYTHONS["gpu"], tmp_path)
    assert done.returncode == 0, done.stderr
    # If this fails, an image for GPUs on arm64 has become possible; docs/deployment.md says that it is not.
    done = resolve(lock, PLATFORMS["linux/arm64"], PYTHONS["gpu"], tmp_path)
    assert done.returncode != 0
    # The sentence around this list differs between versions of uv.
    said = done.stderr.replace("\n", " ")
    assert "onnxruntime-gpu" in said
    assert "the following platforms: `manylinux_2_27_x86_64`" in said
