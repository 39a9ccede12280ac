"""Writes the committed inputs of all targets anew: ``python -m tests.fuzz.make_corpus``."""

from __future__ import annotations

import hashlib

from tests.fuzz.target import CORPUS
from tests.fuzz.targets import ALL


def main() -> None:
    """Add what is not there; found inputs that were added by hand stay."""
    for target in ALL.values():
        folder = CORPUS / target.name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in target.seeds():
            data = seed[: target.most_bytes]
            (folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
