"""Writes the requirements of an image with their hashes, for ``pip install --require-hashes --no-deps``.

    hashed_requirements.py LOCK REPORT

LOCK is constraints-hashed.txt, REPORT an installation report of pip. The program fails, and with it
the build, if LOCK does not contain a package of REPORT in the same version.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)")


def normalised(name: str) -> str:
    """Return a package's name in the normalised form in which package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(text: str) -> dict[tuple[str, str], list[str]]:
    """Return the hashes by name and version."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in text.replace("\\\n", " ").splitlines():
        pin = _PIN.match(entry)
        if pin is not None:
            found.setdefault((normalised(pin[1]), pin[2]), []).extend(
                re.findall(r"sha256:[0-9a-f]{64}", entry)
            )
    return found


def wanted_versions(report: str) -> list[tuple[str, str]]:
    """Return name and version of each package that pip would install."""
    entries = [entry["metadata"] for entry in json.loads(report)["install"]]
    return [(normalised(entry["name"]), entry["version"]) for entry in entries]


def main() -> int:
    """Print the requirements; return the exit code."""
    lock = read_lock(Path(sys.argv[1]).read_text())
    wanted = wanted_versions(Path(sys.argv[2]).read_text())
    absent = [f"{name}=={version}" for name, version in wanted if not lock.get((name, version))]
    if absent:
        sys.stderr.write(f"{sys.argv[1]} has no hash of {', '.join(absent)}; run `make constraints`\n")
        return 1
    for name, version in sorted(wanted):
        hashes = sorted(set(lock[name, version]))
        sys.stdout.write(f"{name}=={version} " + " ".join(f"--hash={each}" for each in hashes) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
