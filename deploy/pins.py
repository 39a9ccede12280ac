"""Writes the digests of foreign images into the Dockerfile and the workflows, beside their tags.

    pins.py         asks the registries with `docker buildx imagetools inspect`, and rewrites the files
    pins.py list    lists the images that have a tag alone

The tag stays, because it says to readers which version the digest belongs to, and the next run asks for it
again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_IMAGE = re.compile(
    r"(?P<tagged>(?:docker\.io|ghcr\.io)/[a-z0-9./_-]+:[A-Za-z0-9._-]+)(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def files() -> list[Path]:
    """Return the files whose images are pinned."""
    return [ROOT / "Dockerfile", *sorted((ROOT / ".github" / "workflows").glob("*.yml"))]


def unpinned(text: str) -> set[str]:
    """Return the images that ``text`` names by a tag alone."""
    return {found["tagged"] for found in _IMAGE.finditer(text) if found["digest"] is None}


def pin(text: str, find_digest: Callable[[str], str]) -> str:
    """Return ``text`` with the digest of each image's tag as ``find_digest`` returns it."""
    return _IMAGE.sub(lambda found: f"{found['tagged']}@{find_digest(found['tagged'])}", text)


def ask_registry(image: str) -> str:
    """Return the digest that a tag has now. Raises CalledProcessError, ValueError."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", image]
    digest = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ValueError(f"docker says that the digest of {image} is {digest!r}")
    return digest


def main(arguments: list[str]) -> int:
    """Pin or list; return the exit code."""
    if arguments not in ([], ["list"]):
        sys.stderr.write(f"pins.py {' '.join(arguments)}: allowed are no argument and `list`\n")
        return 2
    known: dict[str, str] = {}

    def find_digest(image: str) -> str:
        known[image] = known.get(image) or ask_registry(image)
        return known[image]

    texts = {path: path.read_text() for path in files()}
    if arguments == ["list"]:
        found = set().union(*map(unpinned, texts.values()))
        sys.stdout.write("".join(f"{image}\n" for image in sorted(found)))
        return 0
    try:
        pinned = {path: pin(text, find_digest) for path, text in texts.items()}
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        sys.stderr.write(f"{getattr(error, 'stderr', None) or error}\nNo file was changed.\n")
        return 1
    for path, text in pinned.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
