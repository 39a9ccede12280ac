"""Splits photographs by content into `train`, `val` and `test`, and records the parts; see ``--help``.

Near-copies are in one part. `train` has every photograph of which the first weights saw a near-copy, so that
the other parts are unseen by all weights that come from them. `val` chooses among weights, `test` judges.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.training.photos import Photo, read_photos
from streamer.datasets.near_duplicates import clusters

RECORD = Path(__file__).with_name("split.json")
PARTS = ("train", "val", "test")
#: Share of `val` among what the first weights did not see.
_VAL_SHARE = 0.3
#: Folders of the test suites from which the first weights were not trained.
UNSEEN_FOLDERS = frozenset(
    {
        *("aztec-1", "datamatrix-1", "datamatrix-5", "pdf417-3", "micropdf417-1", "multi-1"),
        *("qrcode-4", "qrcode-6", "qrcode-7", "microqrcode-1"),
        *("ean13-1", "upca-3", "upce-3", "code128-3", "code39-2", "codabar-1", "itf-1", "rssexpanded-3"),
        *("rssexpandedstacked-2", "telepen-1", "falsepositives-1"),
    }
)


@dataclass(frozen=True, slots=True)
class Split:
    """The part of each photograph, by the digest of its file."""

    parts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the sorted digests and parts; it identifies the split and the photographs."""
        lines = "".join(f"{key} {part}\n" for key, part in sorted(self.parts.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    def part(self, photos: Sequence[Photo], name: str) -> list[Photo]:
        """Return the photographs of a part. Raises ValueError naming a photograph that the split lacks."""
        chosen = []
        for photo in photos:
            key = key_of(photo)
            if key not in self.parts:
                raise ValueError(
                    f"{photo.path}: not in {RECORD.name}; expected photographs whose parts are recorded. "
                    "Record them: python -m models.training.split --photos FOLDER --write"
                )
            if self.parts[key] == name:
                chosen.append(photo)
        return chosen


def key_of(photo: Photo) -> str:
    """Return the SHA-256 of a photograph's file. Raises OSError."""
    return hashlib.sha256(photo.path.read_bytes()).hexdigest()


def photographs_digest(photos: Iterable[Photo]) -> str:
    """Return the SHA-256 of the sorted digests of photographs, which identifies them."""
    return hashlib.sha256("\n".join(sorted(map(key_of, photos))).encode()).hexdigest()


def read_split(path: Path = RECORD) -> Split:
    """Return the recorded split. Raises ValueError when its digest does not fit."""
    document = json.loads(path.read_text("utf-8"))
    split = Split({key: part for part in PARTS for key in document[part]})
    if split.digest != document["digest"]:
        raise ValueError(f"{path}: expected the digest {split.digest}; found {document['digest']}")
    return split


def write_split(split: Split, path: Path = RECORD) -> None:
    """Record a split."""
    document: dict[str, object] = {"digest": split.digest}
    for name in PARTS:
        document[name] = sorted(key for key, part in split.parts.items() if part == name)
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def assign(keys: Sequence[str], seen: Sequence[bool], pairs: Sequence[tuple[int, int]]) -> Split:
    """Return the split of photographs with these digests, of which ``pairs`` are near-copies.

    A cluster of near-copies is in `train` if one of it was ``seen``; else its smallest digest decides.
    """
    members: dict[int, list[int]] = {}
    for index, cluster in enumerate(clusters(len(keys), pairs)):
        members.setdefault(cluster, []).append(index)
    parts = {}
    for indices in members.values():
        if any(seen[index] for index in indices):
            part = "train"
        else:
            chance = int(min(keys[index] for index in indices)[:8], 16) / 2**32
            part = "val" if chance < _VAL_SHARE else "test"
        parts.update({keys[index]: part for index in indices})
    return Split(parts)


def split_by_content(photos: Sequence[Photo], model: Path) -> tuple[Split, list[tuple[int, int]]]:
    """Return the split of photographs, and the pairs of near-copies; ``model`` has the embedding's network.

    Raises NotRecoverable when the model cannot give embeddings.
    """
    # PyTorch is needed only here, and takes a second to load.
    import torch  # noqa: PLC0415

    from models.training.content import embedding, hashes, near_copies  # noqa: PLC0415
    from streamer.training.recovery import recover  # noqa: PLC0415

    torch.set_num_threads(1)  # one small picture at a time gains nothing from more
    network = recover(model).network
    images = (photo.image() for photo in photos)
    both = [(hashes(image), embedding(network, image)) for image in images]
    pairs = near_copies([entry[0] for entry in both], [entry[1] for entry in both])
    keys = [key_of(photo) for photo in photos]
    return assign(keys, [photo.folder not in UNSEEN_FOLDERS for photo in photos], pairs), pairs


def main() -> None:
    """Split the photographs, and compare the result with the record or write it."""
    parser = argparse.ArgumentParser(
        prog="python -m models.training.split",
        description="Split photographs by content, print the parts, and say whether the record has the same.",
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder with annotations.json and images/")
    parser.add_argument("--model", type=Path, default=Path("models/codes_v1.onnx"), help="for the embedding")
    parser.add_argument("--write", action="store_true", help="record the split")
    options = parser.parse_args()
    photos = read_photos(options.photos)
    split, pairs = split_by_content(photos, options.model)
    for name in PARTS:
        chosen = split.part(photos, name)
        empty = sum(not len(photo.boxes) for photo in chosen)
        print(f"{name}: {len(chosen)} photographs, {empty} of them without a code")
    between = Counter(
        tuple(sorted((photos[a].folder in UNSEEN_FOLDERS, photos[b].folder in UNSEEN_FOLDERS)))
        for a, b in pairs
    )
    print(f"{len(pairs)} pairs of near-copies, {between[False, True]} of them between folders of both sides")
    print(f"digest {split.digest}")
    if options.write:
        write_split(split)
    elif split.digest != read_split().digest:
        sys.exit(f"error: {RECORD.name} has another split; its digest is {read_split().digest}")


if __name__ == "__main__":
    main()
