"""Adds the seeds of all targets to the committed corpus: ``python -m tests.fuzz.make_corpus``."""

from __future__ import annotations

import hashlib

from tests.fuzz.target import CORPUS
from tests.fuzz.targets import ALL


def main() -> None:
    """Write the seeds of every target; other inputs, which somebody added by hand, stay."""
    for target in ALL.values():
        folder = CORPUS / target.name
        folder.mkdir(parents=True, exist_ok=True)
        for seed in target.seeds():
            data = seed[: target.most_bytes]
            (folder / f"{hashlib.sha256(data).hexdigest()[:16]}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
