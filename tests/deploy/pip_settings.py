"""Provides this machine's settings of pip, without local paths, for a build in a container."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

#: Settings of the package indexes and of the connection to them. Others are not passed to the build.
_CARRIED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


def _settings() -> dict[str, str]:
    """Return pip's settings by name, from its files and from the environment, which takes precedence."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = {}
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        if name.startswith(("global.", ":env:.")):
            found[name.partition(".")[2]] = str(ast.literal_eval(value))
    return found


def pip_conf() -> str:
    """Return the text of a pip.conf for the build."""
    lines = ["[global]"]
    for name, value in _settings().items():
        if name in _CARRIED:
            kept = " ".join(word for word in value.split() if not word.startswith(("file:", "/")))
            if kept:
                lines.append(f"{name} = {kept}")
    return "\n".join(lines) + "\n"


def ca_bundle() -> Path | None:
    """Return the file of CA certificates that is configured on this machine, or None."""
    for name in (
        _settings().get("cert"),
        os.environ.get("SSL_CERT_FILE"),
        os.environ.get("REQUESTS_CA_BUNDLE"),
    ):
        if name and Path(name).is_file():
            return Path(name)
    return None
