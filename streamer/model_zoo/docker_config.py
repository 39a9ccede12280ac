"""Reads logins of registries from Docker's config.json, the format of Kubernetes' pull secrets too."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.model_zoo.download_url import BadRequest

#: Keys under which Docker itself keeps the login of Docker Hub.
_DOCKER_HUB_KEYS = ("docker.io", "index.docker.io", "registry-1.docker.io")
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A login: user and password, or a token with which the registry's login service gives others."""

    user: str = ""
    password: str = ""
    identity_token: str = ""

    @property
    def header(self) -> str:
        """Value of the header ``Authorization`` for the scheme Basic."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """Holds the logins of one file."""

    #: The file; None if there is none.
    path: Path | None
    #: Logins by registry, or by registry and the beginning of the repository.
    logins: Mapping[str, Login]
    #: Whether the file leaves some logins to a program, which is not run.
    has_helpers: bool = False

    def find(self, registry: str, repository: str) -> Login | None:
        """Return the most specific login for a repository, or None."""
        hosts = _DOCKER_HUB_KEYS if registry == "docker.io" else (registry,)
        parts = repository.split("/")
        for length in range(len(parts), -1, -1):
            for host in hosts:
                found = self.logins.get("/".join((host, *parts[:length])))
                if found is not None:
                    return found
        return None


def config_path() -> Path | None:
    """Return the file of REGISTRY_AUTH_FILE, DOCKER_CONFIG or the home folder; None if there is none."""
    named = os.environ.get("REGISTRY_AUTH_FILE")
    folder = os.environ.get("DOCKER_CONFIG")
    if named:
        return Path(named)
    if folder:
        return Path(folder) / "config.json"
    usual = Path(os.environ.get("HOME") or "/") / ".docker" / "config.json"
    return usual if usual.is_file() else None


def read_config() -> DockerConfig:
    """Read the file with logins. Raises BadRequest if it is named and cannot be read."""
    path = config_path()
    if path is None:
        return DockerConfig(None, {})
    try:
        with path.open("rb") as stream:
            values = json.loads(stream.read(_MAX_BYTES))
    except OSError as error:
        raise BadRequest(f"logins of registries: {path}: {error.strerror or error}") from error
    except ValueError:
        raise BadRequest(f"logins of registries: {path}: expected JSON, as Docker writes it") from None
    auths = values.get("auths", {}) if isinstance(values, dict) else None
    if not isinstance(auths, dict):
        raise BadRequest(f"logins of registries: {path}: expected an object with the field `auths`")
    logins = {}
    for key, value in auths.items():
        login = _login(value)
        if login is not None:
            logins[_normalised(key)] = login
    helpers = bool(values.get("credsStore") or values.get("credHelpers"))
    return DockerConfig(path, logins, helpers)


def _login(value: Any) -> Login | None:
    """Return the login of an entry; None if it has none, as with a helper."""
    if not isinstance(value, dict):
        return None
    token = value.get("identitytoken")
    if isinstance(token, str) and token:
        return Login(identity_token=token)
    user, password = value.get("username"), value.get("password")
    if isinstance(user, str) and user and isinstance(password, str):
        return Login(user, password)
    try:
        decoded = base64.b64decode(str(value.get("auth") or ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    user, colon, password = decoded.partition(":")
    return Login(user, password) if colon else None


def _normalised(key: str) -> str:
    """Return a key without scheme, version of the API and final slash."""
    name = key.partition("://")[2] or key
    for ending in ("/", "/v2", "/v1"):
        name = name.removesuffix(ending)
    return name
