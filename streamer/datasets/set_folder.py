"""Writes a labelled set in an order that leaves a readable set after a crash at any moment.

`labelled_set` describes and reads the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from streamer.core.durable import FOLDER_MODE, flush, write_durably
from streamer.datasets.label_file import IMAGES, LABELS, PictureLabels, is_id, read_labels
from streamer.datasets.labelled_set import PARTS, PARTS_FILE, SCHEMA, SET_FILE, read_classes, read_parts
from streamer.datasets.sample import BadRequest, CannotWrite


class SetFolder:
    """A labelled set that may not exist yet; the first write creates it.

    Every file is written completely or not at all. Write classes first, then images, then parts, then labels:
    what a crash leaves behind is then an image that no label file names, which readers ignore.
    """

    def __init__(self, folder: Path) -> None:
        """Read what the set has. Raises BadSet for a damaged set, BadRequest for a folder of other files."""
        self.folder = folder
        exists = (folder / SET_FILE).exists()
        if not exists and folder.exists() and (not folder.is_dir() or _has_files(folder)):
            raise BadRequest(f"{folder} is not a labelled set: it has other files, and no {SET_FILE}")
        self.classes: tuple[str, ...] = read_classes(folder) if exists else ()
        self.parts: dict[str, str] = read_parts(folder / PARTS_FILE) if exists else {}
        self.labels: dict[str, PictureLabels] = {}
        for path in sorted((folder / LABELS).glob("*.json")):
            self.labels[path.stem] = read_labels(path)

    def write_image(self, name: str, data: bytes) -> None:
        """Write one upright image file into ``images``. Raises CannotWrite."""
        self._write(self.folder / IMAGES / name, data)

    def write_classes(self, classes: Iterable[str], source: str) -> None:
        """Append the classes that the set does not have; ``source`` says where a new set comes from.

        Classes keep their indices. Raises CannotWrite.
        """
        wanted = tuple(dict.fromkeys([*self.classes, *classes]))
        path = self.folder / SET_FILE
        if wanted == self.classes and path.exists():
            return
        created, first_source = datetime.now(UTC).isoformat(timespec="seconds"), source
        if path.exists():
            fields = json.loads(path.read_bytes())
            created, first_source = fields.get("created", created), fields.get("source", source)
        self._write_json(
            path, {"schema": SCHEMA, "classes": wanted, "created": created, "source": first_source}
        )
        self.classes = wanted

    def write_parts(self, parts: Mapping[str, str]) -> None:
        """Assign pictures to ``train``, ``val`` and ``test``. Raises CannotWrite."""
        unknown = set(parts.values()) - set(PARTS)
        if unknown:
            raise ValueError(f"parts are {', '.join(PARTS)}; found {unknown}")
        wanted = {**self.parts, **parts}
        if wanted != self.parts or not (self.folder / PARTS_FILE).exists():
            self._write_json(self.folder / PARTS_FILE, dict(sorted(wanted.items())))
            self.parts = wanted

    def write_labels(self, labels: Iterable[PictureLabels]) -> None:
        """Write the label file of each picture. Raises CannotWrite."""
        written = False
        for picture in labels:
            if not is_id(picture.id):
                raise ValueError(f"{picture.id!r} cannot be the name of a file")
            self._write(self.folder / LABELS / f"{picture.id}.json", picture.to_json(), flush_folder=False)
            self.labels[picture.id] = picture
            written = True
        if written:
            flush(self.folder / LABELS)

    def _write_json(self, path: Path, content: object) -> None:
        self._write(path, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())

    def _write(self, path: Path, data: bytes, *, flush_folder: bool = True) -> None:
        try:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            write_durably(path, data, path.with_name(f".{path.name}.partial"), flush_folder=flush_folder)
        except OSError as error:
            raise CannotWrite(f"{path}: {error.strerror or error}") from error


def _has_files(folder: Path) -> bool:
    """Return whether a folder has files, apart from those that a crash left unfinished."""
    return any(not path.name.startswith(".") for path in folder.iterdir())
