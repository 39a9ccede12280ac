"""Builds the image from the Dockerfile and runs it without a Docker daemon.

It uses debootstrap, buildah, podman and runc. The base image is made of Debian's packages, without the files
that the slim images of Debian leave out, and takes the place of Python's image in the Dockerfile. Base and
layers are kept in the user's cache folder, so only the first build takes minutes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.deploy.pip_settings import ca_bundle, pip_conf
from tests.deploy.rules import ROOT
from tests.helpers.ports import free_port

PROGRAMS = ("debootstrap", "buildah", "podman", "runc")
BASE = "docker.io/library/python:3.11-slim-bookworm"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
#: What debootstrap leaves behind, and what the slim images of Debian do not contain.
NOT_IN_BASE = (
    *(
        "var/lib/apt/lists",
        "var/cache/apt",
        "var/log",
        "usr/share/doc",
        "usr/share/info",
        "usr/share/lintian",
    ),
    *("usr/share/locale", "usr/share/man"),
)
NAME = "localhost/real-time-vision-api"
TAG, DRIFT_TAG = f"{NAME}:test-cpu", f"{NAME}:test-cpu-drift"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "real-time-vision-api"
#: A base image that is older than this many seconds is made again.
BASE_MAX_AGE_S = 30 * 86400
#: runc, because crun refuses hybrid cgroups; cgroupfs, because there may be no systemd to create cgroups.
PODMAN = ("podman", "--cgroup-manager", "cgroupfs", "--runtime", "runc")
USER = "65532"


def require_tools() -> None:
    """Skip the test if images cannot be built or run here."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        absent.append("root")
    if absent:
        pytest.skip(f"cannot build an image here; not found: {', '.join(absent)}")


class Images:
    """Manages images in a separate storage under `CACHE`."""

    def __init__(self) -> None:
        CACHE.mkdir(parents=True, exist_ok=True)
        config = CACHE / "storage.conf"
        config.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{CACHE}/images"\nrunroot = "{CACHE}/run"\n'
        )
        self._environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(config),
            "BUILDAH_ISOLATION": "chroot",
        }

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other test run uses these images, and lock other runs out during the block."""
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def run(
        self, *command: str | Path, timeout_s: float = 60, check: bool = True, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on these images, with ``given`` as its standard input.

        With ``check``, a failure raises AssertionError with its output.
        """
        done = subprocess.run(
            command,
            env=self._environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{command[0]}: {(done.stdout + done.stderr)[-3000:]}"
        return done

    def podman(
        self, *arguments: str, timeout_s: float = 60, check: bool = True, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run podman."""
        return self.run(*PODMAN, *arguments, timeout_s=timeout_s, check=check, given=given)

    def python(self, *arguments: str, tag: str = TAG, timeout_s: float = 60, given: str | None = None) -> str:
        """Run the Python of an image without a network; return its standard output."""
        done = self.podman(
            *("run", "--rm", "--interactive", "--network", "none", "--read-only", *ulimits()),
            *("--entrypoint", "python3", tag, *arguments),
            timeout_s=timeout_s,
            given=given,
        )
        return done.stdout

    def import_base(self) -> None:
        """Provide `BASE`; skip the test if packages cannot be fetched or containers cannot run."""
        if self.podman("image", "exists", BASE, check=False).returncode != 0:
            tar = _base_tar()
            self.podman("import", str(tar), BASE, timeout_s=300)
        tried = self.podman("run", "--rm", "--network", "host", *ulimits(), BASE, "true", check=False)
        if tried.returncode != 0:
            pytest.skip(f"podman cannot run containers here: {tried.stderr.strip()[-300:]}")

    def build(self, folder: Path, extras: str = "", tag: str = TAG) -> None:
        """Build the target cpu with ``extras``, with a temporary file of pip's settings in ``folder``."""
        before = self._id(tag)
        conf, ca = folder / "pip.conf", ca_bundle()
        conf.write_text(pip_conf())
        secrets = ["--secret", f"id=pip_conf,src={conf}"]
        if ca is not None:
            secrets += ["--secret", f"id=ca,src={ca}"]
        self.run(
            *("buildah", "bud", "--format", "docker", "--pull-never", "--network", "host", "--layers"),
            *secrets,
            *("--target", "cpu", "--build-arg", "REVISION=tested", "--build-arg", f"PYTHON_IMAGE={BASE}"),
            *("--build-arg", f"EXTRAS={extras}", "-t", tag, str(ROOT)),
            timeout_s=1500,
        )
        if before and before != self._id(tag):
            # Remove the image of an older Dockerfile or older code. Layers that both images share remain.
            self.podman("rmi", before, timeout_s=300, check=False)

    def _id(self, tag: str) -> str:
        """Return the id of the image of an earlier build, or an empty text."""
        return self.podman("images", "--quiet", "--no-trunc", tag, check=False).stdout.strip()

    def inspect(self, tag: str = TAG) -> Any:
        """Return podman's description of an image."""
        return json.loads(self.podman("image", "inspect", tag).stdout)[0]


def ulimits() -> tuple[str, ...]:
    """Return resource limits that this user may set, because podman's defaults may be too high."""
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    return ("--ulimit", f"nofile={min(1024, hard)}:{hard}", "--ulimit", "nproc=2048:4096")


def _mirror() -> str:
    """Return the mirror that apt uses for bookworm; skip the test if there is none."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm"],
        capture_output=True,
        text=True,
        check=False,
    )
    mirrors = done.stdout.split()
    if not mirrors:
        pytest.skip("cannot build an image here: apt names no mirror of bookworm")
    return mirrors[0]


def _base_tar() -> Path:
    tar, root = CACHE / "base.tar", CACHE / "base"
    if tar.exists() and time.time() - tar.stat().st_mtime < BASE_MAX_AGE_S:
        return tar
    shutil.rmtree(root, ignore_errors=True)
    done = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", str(root), _mirror()],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"debootstrap cannot make a base here: {(done.stdout + done.stderr).strip()[-300:]}")
    for name in NOT_IN_BASE:
        shutil.rmtree(root / name, ignore_errors=True)
    part = CACHE / "base.tar.part"
    subprocess.run(["tar", "-C", root, "--one-file-system", "-cf", part, "."], timeout=300, check=True)
    part.rename(tar)
    shutil.rmtree(root, ignore_errors=True)
    return tar


class Container:
    """Runs the image as recommended, within ``with``: read-only, without privileges, with limited memory."""

    def __init__(
        self, images: Images, name: str, settings: dict[str, str], *, tag: str = TAG, memory: str = "1g"
    ) -> None:
        self.port = free_port()
        self._images = images
        self.name = name
        environment = {"HOST": "127.0.0.1", "PORT": str(self.port)} | settings
        self._arguments: Sequence[str] = (
            *(
                "run",
                "--detach",
                "--name",
                name,
                "--network",
                "host",
                "--read-only",
                "--read-only-tmpfs=false",
            ),
            *("--tmpfs", "/tmp:rw,size=128m,mode=1777", "--cap-drop=ALL"),  # noqa: S108 - in the container
            *("--security-opt", "no-new-privileges", "--memory", memory, "--pids-limit", "300"),
            *ulimits(),
            *(word for key, value in environment.items() for word in ("--env", f"{key}={value}")),
            tag,
        )
        self.start_s = 0.0

    def __enter__(self) -> Container:
        self._images.podman("rm", "--force", "--volumes", self.name, check=False)
        begun = time.monotonic()
        self._images.podman(*self._arguments, timeout_s=120)
        try:
            self._wait_ready(begun)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._images.podman("rm", "--force", "--volumes", "--time", "0", self.name, check=False)

    def _wait_ready(self, begun: float) -> None:
        deadline = begun + 120
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if b" 200 " in self._ask(b"GET /health HTTP/1.0\r\n\r\n"):
                    self.start_s = time.monotonic() - begun
                    return
            assert self.state()["Running"], self.log()
            time.sleep(0.1)
        raise AssertionError(f"not ready after 120 s:\n{self.log()}")

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(request)
            return connection.recv(64)

    def state(self) -> Any:
        """Return the state of the container as podman reports it: Running, ExitCode, OOMKilled and others."""
        return json.loads(self._images.podman("inspect", self.name).stdout)[0]["State"]

    def log(self) -> str:
        """Return the log of the container."""
        done = self._images.podman("logs", self.name, check=False)
        return done.stdout + done.stderr

    def shell(self, script: str) -> str:
        """Run a script in the container; return its standard output."""
        return self._images.podman("exec", self.name, "sh", "-c", script).stdout

    def probe(self) -> int:
        """Run the health check of the image; return its exit code."""
        return self._images.podman("healthcheck", "run", self.name, check=False).returncode

    def stop(self, grace_s: int) -> float:
        """Send SIGTERM, and SIGKILL after the grace period; return the seconds until the container ended."""
        begun = time.monotonic()
        self._images.podman("stop", "--time", str(grace_s), self.name, timeout_s=grace_s + 60)
        return time.monotonic() - begun
