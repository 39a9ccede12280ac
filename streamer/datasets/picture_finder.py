"""Finds the picture that a labelling tool means: a collected sample, or an image file in a folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from streamer.datasets.annotations import AnnotatedPicture, BadLabels
from streamer.datasets.labelled_set import PARTS
from streamer.datasets.sample import DamagedSample, Sample
from streamer.datasets.source import Source, read_samples
from streamer.datasets.upright import upright_file, upright_image
from streamer.datasets.yolo import IMAGE_SUFFIXES

#: File of an export that says which sample each of its images is.
SAMPLES_FILE = "samples.json"
#: What exports append to stream and day in the name of an image: the first digits of the sample id.
ID_DIGITS = 20
_ID_IN_NAME = re.compile(rf"_([0-9a-f]{{{ID_DIGITS}}})$")
#: What Label Studio puts in front of the name of an uploaded file.
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True, slots=True)
class FoundPicture:
    """One upright image file. Size in pixels."""

    id: str
    #: Reads the upright image file. Not kept in memory, because an import may have thousands.
    read: Callable[[], bytes]
    extension: str
    width: int
    height: int
    #: Where the image came from, for messages.
    place: str
    #: The part that the export of the samples gave it; empty if it came from no export.
    part: str = ""


class SampleFinder:
    """Finds collected samples, by their id or by the names that exports gave to their images."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._samples: dict[str, Sample] = {sample.sha256: sample for sample in read_samples(source)}
        self._by_digits = {name[:ID_DIGITS]: name for name in self._samples}

    def find(self, picture: AnnotatedPicture) -> FoundPicture:
        """Return the picture. Raises BadLabels if there is none."""
        in_name = _ID_IN_NAME.search(PurePosixPath(path_in(picture.name)).stem)
        digits = picture.sample_id or (in_name[1] if in_name else "")
        sample = self._samples.get(self._by_digits.get(digits[:ID_DIGITS], ""))
        if sample is None:
            raise BadLabels(f"{picture.where}: there is no sample for {picture.name!r}")
        extension = sample.kind if sample.is_upright else "png" if sample.kind == "png" else "jpg"

        def read() -> bytes:
            try:
                return upright_image(sample, self._source.read(sample.key))[0]
            except FileNotFoundError:
                raise DamagedSample(f"{sample.key} is missing") from None

        return FoundPicture(sample.sha256, read, extension, sample.width, sample.height, sample.key)


class FolderFinder:
    """Finds image files below a folder, by path, or by name alone if only one file has it."""

    def __init__(self, folder: Path) -> None:
        """List the images. Raises BadLabels if the folder has none, or a damaged ``samples.json``."""
        self._folder = folder
        #: By the name of the file, and by that without its suffix, which labels in YOLO's format lack.
        self._by_name: defaultdict[str, list[Path]] = defaultdict(list)
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                self._by_name[path.name].append(path)
                self._by_name[path.stem].append(path)
        if not self._by_name:
            raise BadLabels(f"{folder} has no images; name the folder of the pictures with --in")
        self._exported = _read_exported(folder)

    def find(self, picture: AnnotatedPicture) -> FoundPicture:
        """Return the picture. Raises BadLabels if there is none or it is ambiguous, DamagedSample."""
        path = self._path(picture)
        data = path.read_bytes()
        relative = path.relative_to(self._folder).as_posix()
        known_id, part = self._exported.get(relative, ("", ""))
        _, extension, (width, height) = upright_file(data, str(path))
        name = known_id or hashlib.sha256(data).hexdigest()

        def read() -> bytes:
            return upright_file(path.read_bytes(), str(path))[0]

        return FoundPicture(name, read, extension, width, height, str(path), part)

    def _path(self, picture: AnnotatedPicture) -> Path:
        wanted = PurePosixPath(path_in(picture.name))
        if wanted.is_absolute() and self._folder.resolve() in Path(wanted).resolve().parents:
            path = self._folder / Path(wanted).resolve().relative_to(self._folder.resolve())
            if path.is_file():
                return path
        found = self._by_name.get(wanted.name) or self._by_name.get(_UPLOAD_PREFIX.sub("", wanted.name)) or []
        # The longest common end of the paths decides between files of one name.
        scored = [(_common_end(path.parts, wanted.parts), path) for path in found]
        most = max((score for score, _ in scored), default=0)
        best = [path for score, path in scored if score == most]
        if len(best) == 1:
            return best[0]
        if best:
            choices = ", ".join(str(path.relative_to(self._folder)) for path in best[:3])
            raise BadLabels(f"{picture.where}: {picture.name!r} may be any of {choices}")
        raise BadLabels(f"{picture.where}: {self._folder} has no picture {wanted.name!r}")


def path_in(address: str) -> str:
    """Return the path that an address of Label Studio contains, or the address itself."""
    parts = urlsplit(address)
    if "d" in (query := parse_qs(parts.query)):
        return unquote(query["d"][0])
    return (
        unquote(parts.path) if parts.scheme in ("http", "https", "s3", "gs") else address.replace("\\", "/")
    )


def exported_samples(images: Iterable[tuple[str, str, str]]) -> bytes:
    """Return the content of an export's ``samples.json`` for paths, sample ids and parts."""
    entries = {path: {"id": name, "part": part} for path, name, part in images}
    return (json.dumps({"schema": 1, "images": entries}, indent=1) + "\n").encode()


def _read_exported(folder: Path) -> dict[str, tuple[str, str]]:
    path = folder / SAMPLES_FILE
    if not path.exists():
        return {}
    try:
        fields = json.loads(path.read_bytes())["images"]
        found = {name: (str(entry["id"]), str(entry["part"])) for name, entry in fields.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadLabels(f"{path}: not written by `streamer samples export`: {error!r}") from error
    for name, (_, part) in found.items():
        if part not in PARTS:
            raise BadLabels(f"{path}: field `part` of {name} is {part!r}; allowed are {', '.join(PARTS)}")
    return found


def _common_end(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count
