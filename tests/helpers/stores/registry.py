"""Runs a real OCI registry on loopback, and pushes artifacts into it with an independent client.

It needs the Debian packages docker-registry (the registry of the distribution project) and skopeo.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.helpers.ports import free_port

PROGRAMS = ("docker-registry", "skopeo")
USER, PASSWORD = "puller", "dummy-password"
#: bcrypt hash of `PASSWORD`; the registry takes no other kind.
_HTPASSWD = f"{USER}:$2b$04$5Ws3W.4IxqgAM/DOz5ImWOyhoPrZdTsTBUF0fccb3SygfjpAWXNUO\n"
_TITLE = "org.opencontainers.image.title"
_MISSING = [name for name in PROGRAMS if shutil.which(name) is None]
#: Skips a test where the programs are missing.
NEEDS_REGISTRY = pytest.mark.skipif(
    bool(_MISSING),
    reason=f"needs {', '.join(_MISSING)} (as root: apt-get install {' '.join(PROGRAMS)})",
)


class Registry:
    """Runs the registry within ``with``.

    ``auth`` is the section of that name in its configuration; ``storage`` replaces the folder in which it
    keeps its files; ``tls`` is a certificate and its key; ``host`` is the address on which it listens.
    """

    def __init__(
        self,
        folder: Path,
        *,
        auth: Mapping[str, Any] | None = None,
        storage: Mapping[str, Any] | None = None,
        tls: tuple[Path, Path] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._folder = folder
        self._tls = tls
        self.address = f"{host}:{free_port()}"
        http: dict[str, Any] = {"addr": self.address, "secret": "dummy"}
        if tls is not None:
            http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
        self._configuration: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": storage or {"filesystem": {"rootdirectory": str(folder / "data")}},
            "http": http,
        }
        if auth is not None:
            self._configuration["auth"] = auth
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "registry.json"
        configuration.write_text(json.dumps(self._configuration))  # JSON is YAML
        with (self._folder / "registry.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(configuration)], stdout=log, stderr=log
            )
        self._wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def push(self, layout: Path, name: str, *, login: str = "") -> None:
        """Push the artifact in an OCI layout under ``REPOSITORY:TAG`` with skopeo."""
        done = subprocess.run(
            [
                "skopeo",
                "--insecure-policy",
                "copy",
                "--quiet",
                "--preserve-digests",
                "--dest-tls-verify=false",
                *(["--dest-creds", login] if login else []),
                f"oci:{layout}:artifact",
                f"docker://{self.address}/{name}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-800:]

    def _wait(self) -> None:
        url = f"{'https' if self._tls else 'http'}://{self.address}/v2/"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, (self._folder / "registry.log").read_text()[-800:]
            try:
                with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - this machine
                    return
            except urllib.error.HTTPError as answer:
                answer.close()
                return
            except OSError as error:
                if "certificate" in str(error).lower():
                    return  # it answers
                time.sleep(0.05)
        raise AssertionError("the registry does not answer")


def htpasswd(folder: Path) -> Mapping[str, Any]:
    """Return the section ``auth`` for a registry that knows one user."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(_HTPASSWD)
    return {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}


def make_layout(folder: Path, files: Mapping[str, bytes]) -> str:
    """Write an artifact with titled files, as `oras push` does, as an OCI layout; return its digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes, kind: str, title: str = "") -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        described: dict[str, Any] = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}
        return described | ({"annotations": {_TITLE: title}} if title else {})

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add(b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [
            add(data, "application/vnd.oci.image.layer.v1.tar", title) for title, data in files.items()
        ],
    }
    described = add(json.dumps(manifest).encode(), str(manifest["mediaType"]))
    described["annotations"] = {"org.opencontainers.image.ref.name": "artifact"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return str(described["digest"])


def docker_config(folder: Path, registry: str, user: str = USER, password: str = PASSWORD) -> Path:
    """Write a config.json with one login, as `docker login` does; return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    return folder
