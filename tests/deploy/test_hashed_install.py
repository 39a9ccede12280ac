"""Tests S22: an image installs no package whose hash was not committed; the test makes its own packages."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.deploy.rules import ROOT

LOCK = (ROOT / "constraints-hashed.txt").read_text()
_PIN = re.compile(r"^([a-z0-9._-]+==[^\s\\]+)((?: ; [^\\\n]+)?)", re.MULTILINE)


def make_wheel(folder: Path, name: str, version: str, needs: str = "") -> str:
    """Write a wheel with one module and return its SHA-256."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    target = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return hashlib.sha256(target.read_bytes()).hexdigest()


#: Stands in for `python3` and copies an environment with pip, because making one takes seconds.
_COPIES_TOOLS = """#!/bin/sh
if [ "$*" = "-m venv {tools}" ]; then
    mkdir -p {tools} && cp -a {made}/. {tools}
    exec sed -i '1s|^#!.*|#!{tools}/bin/python3|' {tools}/bin/pip*
fi
exec {python} "$@"
"""


@pytest.fixture(scope="module")
def made_tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with pip, as the script makes it for its tools."""
    folder = tmp_path_factory.mktemp("made") / "tools"
    subprocess.run(["python3", "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def quick_tools(build: Path, made_tools: Path) -> None:
    """Let the script copy the environment of its tools instead of making one."""
    python = build / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(
        _COPIES_TOOLS.format(tools=build / "tools", made=made_tools, python=shutil.which("python3"))
    )
    python.chmod(0o755)


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Write a project that needs `near`, which needs `far`, with a folder of wheels and a lock file."""
    for name in ("venv.sh", "hashed_requirements.py", "prune.py"):
        shutil.copy(ROOT / "deploy" / name, tmp_path)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    lock = ""
    for name, version, needs in (("far", "2.0", ""), ("near", "1.0", "far>=1"), ("builder", "3.0", "")):
        lock += f"{name}=={version} \\\n    --hash=sha256:{make_wheel(wheels, name, version, needs)}\n"
    (tmp_path / "constraints-hashed.txt").write_text(lock)
    (tmp_path / "constraints-cuda12.txt").write_text("")
    (tmp_path / "constraints.txt").write_text("far==2.0\nnear==1.0\nbuilder==3.0\n")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["builder"]\n[project]\nname = "x"\ndependencies = []\n'
        '[project.optional-dependencies]\nserver = ["x[drift,server-slim]"]\nserver-slim = ["x[other]"]\n'
        'other = ["near>=1"]\ndrift = ["unknown"]\nmore = ["x[server]"]\n'
    )
    return tmp_path


def install(build: Path, *extras: str, flavour: str = "gpu-cuda13") -> subprocess.CompletedProcess[str]:
    """Run the install script of the Dockerfile without access to a package index."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PIP_")} | {
        "PATH": f"{build / 'bin'}:{os.environ['PATH']}",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(build / "wheels"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "TOOLS_DIR": str(build / "tools"),
        "VENV_DIR": str(build / "venv"),
    }
    return subprocess.run(
        ["sh", "venv.sh", "dependencies", flavour, *extras],
        cwd=build,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def installed(build: Path) -> set[str]:
    return {path.name for path in (build / "venv").rglob("*.py") if path.name in ("near.py", "far.py")}


def test_what_the_lock_knows_is_installed_with_what_that_needs(build: Path) -> None:
    done = install(build)
    assert done.returncode == 0, done.stderr
    assert installed(build) == {"near.py", "far.py"}


@pytest.mark.usefixtures("quick_tools")
def test_evidently_is_only_in_an_image_that_asks_for_it(build: Path) -> None:
    # `more` includes the whole service, as the extras of the project do.
    done = install(build, "more")
    assert done.returncode == 0, done.stderr
    assert installed(build) == {"near.py", "far.py"}
    done = install(build, "more", "drift")
    assert done.returncode != 0
    assert "unknown" in done.stderr


@pytest.mark.usefixtures("quick_tools")
@pytest.mark.parametrize("machine", ["x86_64", "another"])
@pytest.mark.parametrize(
    ("flavour", "expected"),
    [
        ("cpu", "onnxruntime-2.0"),
        ("gpu-cuda13", "onnxruntime_gpu-2.0"),
        ("gpu-cuda12", "onnxruntime_gpu-1.26.0"),
    ],
)
def test_each_image_gets_its_onnx_runtime_on_every_machine(
    build: Path, flavour: str, expected: str, machine: str
) -> None:
    """The markers of the project's own file choose by machine; here they fit this machine, and another."""
    marker = f"platform_machine == '{platform.machine() if machine == 'x86_64' else machine}'"
    opposite = marker.replace("==", "!=")
    wheels = build / "wheels"
    digests = {
        (name, version): make_wheel(wheels, name.replace("-", "_"), version)
        for name, version in (
            ("onnxruntime", "2.0"),
            ("onnxruntime-gpu", "2.0"),
            ("onnxruntime-gpu", "1.26.0"),
        )
    }

    def locked(name: str, version: str, text: str) -> str:
        return f"{name}=={version}{text} \\\n    --hash=sha256:{digests[name, version]}\n"

    lock = build / "constraints-hashed.txt"
    pins = [("onnxruntime", "2.0", f" ; {opposite}"), ("onnxruntime-gpu", "2.0", f" ; {marker}")]
    lock.write_text(lock.read_text() + "".join(locked(*pin) for pin in pins))
    (build / "constraints-cuda12.txt").write_text(locked("onnxruntime-gpu", "1.26.0", ""))
    constraints = build / "constraints.txt"
    constraints.write_text(
        constraints.read_text() + "".join(f"{name}=={version}{text}\n" for name, version, text in pins)
    )
    project = build / "pyproject.toml"
    lines = f'    "onnxruntime>=1.31; {opposite}",\n    "onnxruntime-gpu>=1.31; {marker}",\n'
    project.write_text(project.read_text().replace('other = ["near>=1"]', f"other = [\n{lines}]"))
    done = install(build, flavour=flavour)
    assert done.returncode == 0, done.stderr
    found = {
        path.name.removesuffix(".dist-info") for path in (build / "venv").rglob("onnxruntime*.dist-info")
    }
    assert found == {expected}


@pytest.mark.usefixtures("quick_tools")
@pytest.mark.parametrize("name", ["far", "builder"])
def test_a_package_that_changed_since_its_hash_was_committed_ends_the_build(build: Path, name: str) -> None:
    (wheel,) = (build / "wheels").glob(f"{name}-*.whl")
    with zipfile.ZipFile(wheel, "a") as opened:
        opened.writestr("planted.py", "")
    done = install(build)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert installed(build) == set()


@pytest.mark.usefixtures("quick_tools")
def test_a_package_that_the_lock_does_not_know_ends_the_build(build: Path) -> None:
    lock = build / "constraints-hashed.txt"
    lock.write_text(lock.read_text().partition("near==")[0] + lock.read_text()[-100:])
    done = install(build)
    assert done.returncode != 0
    assert "make constraints" in done.stderr
    assert installed(build) == set()


def test_the_lock_has_the_versions_of_the_pins_and_a_hash_for_each() -> None:
    pinned = set((ROOT / "constraints.txt").read_text().splitlines())
    found = [pin + marker.rstrip() for pin, marker in _PIN.findall(LOCK)]
    assert len(found) > 100
    assert set(found) - pinned == set()
    entries = LOCK.replace("\\\n", " ").splitlines()
    assert len(entries) == len(found)
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_build_for_cuda_12_has_one_package_of_its_own() -> None:
    text = (ROOT / "constraints-cuda12.txt").read_text()
    ((pin, _),) = _PIN.findall(text)
    # The last one that is built for CUDA 12.
    assert pin.startswith("onnxruntime-gpu==1.26.")
    assert "--hash=sha256:" in text


def test_the_lock_names_no_place_to_install_from() -> None:
    assert re.findall(r"://|--(?:index|extra|find)", LOCK) == []


def test_the_dockerfile_installs_by_this_script_alone() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert "pip install" not in text
    script = (ROOT / "deploy" / "venv.sh").read_text().replace("\\\n", " ")
    installs = [line for line in script.splitlines() if " install " in line and "pip" in line]
    assert len(installs) == 3
    for line in installs:
        assert "--require-hashes" in line or "--dry-run" in line or "--no-deps" in line, line


def test_the_lock_knows_everything_that_the_project_asks_for() -> None:
    # If this fails after you added a dependency, run `make hashes`; without that the image cannot be built.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]
    asked = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-") for line in lines}  # type: ignore[index]
    known = {pin.partition("==")[0] for pin, _ in _PIN.findall(LOCK)}
    assert len(asked) > 20
    assert asked - known == {project["name"]}
