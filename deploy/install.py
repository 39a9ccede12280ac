"""Installs packages into the virtual environment whose Python runs this file, and prints its progress.

    .venv/bin/python deploy/install.py ARGUMENT...      arguments as `pip install` takes them

The versions are those in constraints.txt. uv takes seconds, pip takes minutes. If uv cannot be installed or
fails, pip installs the same packages.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent.parent / "constraints.txt"
#: pip's settings, and the variables that mean the same to uv, which does not read pip's configuration.
_UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
}


def main(arguments: list[str]) -> int:
    """Install with uv, or with pip if uv fails; return the exit code."""
    started = time.monotonic()
    if _install_with_uv(arguments):
        code = 0
    else:
        say("installing with pip, which takes a few minutes")
        code = _install_with_pip(arguments)
    if code == 0:
        say(f"installed in {time.monotonic() - started:.0f} s")
    return code


def say(text: str) -> None:
    """Print one line of progress without buffering."""
    print(f"-- {text}", flush=True)  # noqa: T201  make shows it


def uv_environment(pip_settings: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for uv.

    ``pip_settings`` are the lines of `pip config list`. Variables of uv in ``environment`` win.
    """
    found: dict[str, str] = {}
    # pip prefers its environment variables to its files, so they come last and overwrite.
    for line in sorted(pip_settings, key=lambda line: line.startswith(":env:")):
        name, _, quoted = line.partition("=")
        section, _, option = name.partition(".")
        variable = _UV_VARIABLES.get(option)
        if variable is None or section not in {"global", "install", ":env:"}:
            continue
        words = str(ast.literal_eval(quoted)).split()
        found[variable] = ("," if variable == "UV_FIND_LINKS" else " ").join(words)
    # Choose the newest allowed version of all indexes, as pip does.
    found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return found | dict(environment)


def _pip(*arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE if quiet else None, text=True, check=False)  # noqa: S603


def _install_with_uv(arguments: list[str]) -> bool:
    """Install with uv; return whether that worked."""
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        say("installing uv, which installs the rest in seconds")
        _pip("install", "--quiet", "-c", str(CONSTRAINTS), "uv")
    if not uv.exists():
        say("uv cannot be installed here")
        return False
    say(f"installing with uv: {' '.join(arguments)}")
    environment = uv_environment(_pip("config", "list", quiet=True).stdout.splitlines(), os.environ)
    command = [str(uv), "pip", "install", "--python", sys.executable, "-c", str(CONSTRAINTS), *arguments]
    try:
        return subprocess.run(command, env=environment, check=False).returncode == 0  # noqa: S603
    except OSError as error:
        say(f"uv cannot be started: {error}")
        return False


def _install_with_pip(arguments: list[str]) -> int:
    if "--group" in arguments:
        # pip supports dependency groups since version 25.1.
        _pip("install", "--quiet", "--upgrade", "pip>=25.1")
    return _pip("install", "-c", str(CONSTRAINTS), *arguments).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
