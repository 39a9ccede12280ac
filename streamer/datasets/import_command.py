"""Imports one export into a labelled set: opens files, reads, plans, writes, and reports."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamer.datasets.annotations import Annotations, BadLabels, found_xml
from streamer.datasets.coco import read_coco
from streamer.datasets.label_file import State
from streamer.datasets.label_import import Finder, ImportOptions, plan_import
from streamer.datasets.label_studio import read_label_studio
from streamer.datasets.labelled_set import PARTS, load_set
from streamer.datasets.picture_finder import FolderFinder, SampleFinder
from streamer.datasets.sample import BadRequest
from streamer.datasets.set_folder import SetFolder
from streamer.datasets.set_update import update_set
from streamer.datasets.source import SCHEME, open_source
from streamer.datasets.statistics import Split
from streamer.datasets.yolo import read_yolo

#: Called with the current step and the completed share of it, 0..1.
OnProgress = Callable[[str, float], None]
_DEFAULT_SPLIT = Split.parse("80,10,10")
_MIN_DIGITS = 6


@dataclass(slots=True)
class ImportReport:
    """What an import did."""

    #: Number of pictures of the export: new, changed, unchanged, kept, skipped.
    counts: Counter[str]
    #: Number of pictures of the set by part.
    parts: Counter[str]
    #: Number of boxes of the set by class and part.
    boxes: Counter[tuple[str, str]]
    classes: tuple[str, ...]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON types."""
        return {
            "pictures": dict(self.counts),
            "parts": {part: self.parts[part] for part in PARTS},
            "boxes": {name: {part: self.boxes[name, part] for part in PARTS} for name in self.classes},
            "notes": self.notes,
        }

    def to_text(self, folder: Path) -> str:
        """Return the report as lines of text."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items() if number) or "nothing"
        lines = [
            f"pictures of the export: {counts}",
            f"{folder}: " + ", ".join(f"{self.parts[part]} {part}" for part in PARTS),
        ]
        lines += [
            f"  {name}: " + ", ".join(f"{self.boxes[name, part]} {part}" for part in PARTS) + " boxes"
            for name in self.classes
        ]
        return "".join(f"{line}\n" for line in lines)


def import_into(
    folder: Path,
    file: Path,
    source_format: str,
    pictures: str | None,
    split: Split | None,
    options: ImportOptions,
    on_progress: OnProgress = lambda step, share: None,
) -> ImportReport:
    """Import the export ``file`` into the set ``folder``, and return what was done.

    Without ``split``, the parts that the export states count. Raises BadLabels, BadSet, BadRequest,
    CannotRead, CannotWrite or DamagedSample; a wrong export changes nothing.
    """
    for name, path in (("FILE", file), ("--out", folder)):
        # A path has only one of the slashes of the address.
        if path.parts[:1] == (SCHEME.removesuffix("//"),):
            raise BadRequest(
                f"{name} is an address of a bucket, {SCHEME}{Path(*path.parts[1:])}; labels and sets are in "
                "folders. Copy it, or mount the bucket; only --in may be in a bucket"
            )
    opened = SetFolder(folder)
    with _unpacked(file) as place:
        annotations = _read(place, source_format)
        with _finder(pictures, place) as finder:
            plan = plan_import(
                annotations,
                finder,
                opened.labels,
                options,
                lambda done, total: on_progress("reading pictures", done / total),
            )
            if split is not None:
                plan.hints.clear()
            if not annotations.pictures:
                raise BadLabels(f"{file}: nobody has labelled a picture in it")
            update = update_set(
                opened,
                plan,
                split or _DEFAULT_SPLIT,
                options.classes or annotations.classes,
                options.source,
                lambda done, total: on_progress("comparing pictures", done / total),
            )
    load_set(folder)
    return ImportReport(plan.counts, update.parts, update.boxes, opened.classes, plan.notes + update.notes)


def delete_from(folder: Path, names: Sequence[str], by: str) -> list[str]:
    """Mark pictures as deleted; return their ids. Raises BadRequest for an unknown or ambiguous id."""
    if not folder.is_dir():
        raise BadRequest(f"{folder} is not a labelled set")
    opened = SetFolder(folder)
    chosen = []
    for name in names:
        found = [known for known in opened.labels if known.startswith(name)]
        if name in opened.labels:
            found = [name]
        if len(found) != 1 or (len(name) < _MIN_DIGITS and name not in opened.labels):
            raise BadRequest(
                f"{name!r} means {len(found)} pictures of {folder}; expected the id of one, or at least "
                f"{_MIN_DIGITS} of its first digits"
            )
        chosen.append(opened.labels[found[0]])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    opened.write_labels(
        replace(known, state=State.DELETED, boxes=(), by=by, at=now, source="labels delete").after(known)
        for known in chosen
    )
    return [known.id for known in chosen]


def _read(place: Path, source_format: str) -> Annotations:
    if source_format == "yolo":
        return read_yolo(place)
    if place.is_dir():
        files = sorted(place.glob("annotations/*.json")) or sorted(place.glob("*.json"))
        files = [path for path in files if path.name != "samples.json"]
    else:
        files = [place]
    if not files:
        xml = next(place.glob("*.xml"), None)
        if xml is not None:
            raise found_xml(xml)
        raise BadLabels(f"{place}: it has no JSON file")
    if source_format == "coco":
        return read_coco(files)
    if len(files) > 1:
        raise BadLabels(f"{place}: it has {len(files)} JSON files; name the one to import")
    return read_label_studio(files[0])


@contextmanager
def _finder(pictures: str | None, place: Path) -> Iterator[Finder]:
    """Open where the pictures are; by default beside the labels."""
    if pictures is None:
        folder = place if place.is_dir() else place.parent
        yield FolderFinder(folder.parent if folder.name == "annotations" else folder)
    elif pictures.startswith(SCHEME) or (Path(pictures) / "v1").is_dir():
        with open_source(pictures) as source:
            yield SampleFinder(source)
    elif not Path(pictures).is_dir():
        raise BadRequest(f"--in is {pictures!r}; expected a folder, or s3://BUCKET/PREFIX")
    else:
        yield FolderFinder(Path(pictures))


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """Return the file or folder; unpack a ZIP file, as CVAT exports it, into a temporary folder."""
    if not file.exists():
        raise BadRequest(f"FILE is {str(file)!r}; there is no such file or folder")
    if file.is_dir() or not zipfile.is_zipfile(file):
        yield file
        return
    folder = Path(tempfile.mkdtemp(prefix="labels-"))
    try:
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)  # leaves out `..` and absolute paths
        yield folder
    except zipfile.BadZipFile as error:
        raise BadLabels(f"{file}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
