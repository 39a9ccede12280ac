"""How pip reaches its index on this machine, for a build inside a container: without local paths."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

#: Settings that say where packages come from; what names local folders means nothing inside a build.
_CARRIED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


def _settings() -> dict[str, str]:
    """Return pip's settings by name, from its files and from the environment, which wins."""
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
    """Return the text of a pip.conf."""
    lines = ["[global]"]
    for name, value in _settings().items():
        if name in _CARRIED:
            kept = " ".join(word for word in value.split() if not word.startswith(("file:", "/")))
            if kept:
                lines.append(f"{name} = {kept}")
    return "\n".join(lines) + "\n"


def ca_bundle() -> Path | None:
    """Return the certificates that this machine trusts beside the usual ones, or None."""
    for name in (
        _settings().get("cert"),
        os.environ.get("SSL_CERT_FILE"),
        os.environ.get("REQUESTS_CA_BUNDLE"),
    ):
        if name and Path(name).is_file():
            return Path(name)
    return None
