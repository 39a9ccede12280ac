"""Merges the annotations of a labelling tool into a labelled set, without losing what is newer there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from streamer.datasets.annotations import AnnotatedPicture, Annotations, BadLabels, to_pixels
from streamer.datasets.label_file import LabelledBox, PictureLabels, State, box_fault
from streamer.datasets.picture_finder import FoundPicture
from streamer.datasets.sample import DamagedSample

#: At most this many faults are listed.
_SHOWN = 20


class Finder(Protocol):
    """Finds pictures; `picture_finder` has two implementations."""

    def find(self, picture: AnnotatedPicture) -> FoundPicture:
        """Return the picture that a tool means. Raises BadLabels or DamagedSample."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Says how an import decides."""

    #: Format and name of the export, for the label files.
    source: str
    #: Allowed class names; empty allows those of the export.
    classes: tuple[str, ...] = ()
    #: Person to name where the export names none.
    by: str = ""
    #: Whether a picture without boxes has nothing in it, in formats that do not say that it was looked at.
    empty_is_nothing: bool = True
    #: Leave out pictures with a wrong box, and pictures that cannot be found, instead of refusing the import.
    skip_wrong: bool = False
    #: The export wins against labels in the set, also against newer ones and against deletions.
    replace: bool = False


@dataclass(slots=True)
class Plan:
    """What an import will write. Nothing is written before all of it is known to be right."""

    #: New and changed labels by id.
    labels: dict[str, PictureLabels] = field(default_factory=dict)
    #: The images of new pictures by id.
    images: dict[str, FoundPicture] = field(default_factory=dict)
    #: Parts that an export of samples gave to pictures, by id. They keep them.
    parts: dict[str, str] = field(default_factory=dict)
    #: Parts that the labelling tool states, by id. Near-duplicates of pictures in other parts leave them.
    hints: dict[str, str] = field(default_factory=dict)
    #: Number of pictures: new, changed, unchanged, kept (the set's labels are newer), skipped, and repeated
    #: (the same file under another name).
    counts: Counter[str] = field(default_factory=Counter)
    #: Conflicts and what was left out, one sentence each.
    notes: list[str] = field(default_factory=list)


def plan_import(
    annotations: Annotations,
    finder: Finder,
    known: Mapping[str, PictureLabels],
    options: ImportOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plan:
    """Return what the import changes in a set with the labels ``known``.

    Raises BadLabels with all faults, unless the options leave wrong pictures out.
    """
    plan = Plan(notes=list(annotations.notes))
    faults = list(annotations.faults)
    places: dict[str, str] = {}
    for done, picture in enumerate(annotations.pictures):
        on_progress(done, len(annotations.pictures))
        if not picture.boxes and not picture.looked_at and not options.empty_is_nothing:
            plan.counts["skipped"] += 1
            continue
        try:
            found = finder.find(picture)
            labels = _labels_of(picture, found, options)
        except (BadLabels, DamagedSample) as error:
            faults += str(error).split("\n")
            plan.counts["skipped"] += 1
            continue
        if found.id in plan.labels or found.id in places:
            earlier = plan.labels.get(found.id) or known[found.id]
            if not earlier.says_the_same(labels):
                faults.append(f"{picture.where}: {found.place} is the same picture as {places[found.id]}")
            plan.counts["repeated"] += 1
            continue
        places[found.id] = found.place
        if found.part:
            plan.parts[found.id] = found.part
        elif picture.part:
            plan.hints[found.id] = picture.part
        _merge(labels, found, known.get(found.id), plan, options)
    if faults and not options.skip_wrong:
        more = f"\nand {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise BadLabels(
            f"{options.source} is refused; nothing was imported (--skip-wrong leaves such pictures out)\n"
            + "\n".join(faults[:_SHOWN])
            + more
        )
    plan.notes += faults
    return plan


def _labels_of(picture: AnnotatedPicture, found: FoundPicture, options: ImportOptions) -> PictureLabels:
    """Return the labels in pixels. Raises BadLabels with a line for each wrong box."""
    width, height = found.width, found.height
    if picture.size is not None and not _same_shape(picture.size, (width, height), picture.relative):
        raise BadLabels(
            f"{picture.where}: the tool saw {picture.size[0]}x{picture.size[1]} pixels; {found.place} has "
            f"{width}x{height} (upright)"
        )
    faults = []
    boxes = []
    for entry in picture.boxes:
        x1, y1, x2, y2 = to_pixels(entry, relative=picture.relative, width=width, height=height)
        if entry.surrounds:
            x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if fault := box_fault((x1, y1, x2, y2), width, height):
            faults.append(f"{entry.where}: {fault}")
        if options.classes and entry.label not in options.classes:
            faults.append(
                f"{entry.where}: its class is {entry.label!r}; allowed are {', '.join(options.classes)}"
            )
        boxes.append(LabelledBox((x1, y1, x2, y2), entry.label))
    if faults:
        raise BadLabels("\n".join(faults))
    return PictureLabels(
        found.id,
        f"{found.id}.{found.extension}",
        width,
        height,
        State.LABELLED if boxes else State.NOTHING_HERE,
        tuple(dict.fromkeys(boxes)),
        picture.by or options.by,
        picture.at,
        f"{options.source}: {picture.where}",
    )


def _same_shape(seen: tuple[int, int], size: tuple[int, int], relative: bool) -> bool:
    """Return whether boxes of a picture of the size ``seen`` fit one of ``size``."""
    if not relative:
        return seen == size
    return abs(seen[0] / seen[1] / (size[0] / size[1]) - 1) < 0.01


def _merge(
    labels: PictureLabels,
    found: FoundPicture,
    known: PictureLabels | None,
    plan: Plan,
    options: ImportOptions,
) -> None:
    if known is None:
        plan.counts["new"] += 1
        plan.labels[labels.id] = labels
        plan.images[labels.id] = found
        return
    labels = labels.after(known)
    if known.says_the_same(labels):
        plan.counts["unchanged"] += 1
        return
    reason = "" if options.replace else _why_kept(labels, known)
    who = known.by or "unknown"
    if reason:
        plan.counts["kept"] += 1
        plan.notes.append(f"{labels.source}: the set keeps its labels by {who}: {reason}")
        return
    plan.counts["changed"] += 1
    plan.notes.append(
        f"{labels.source}: replaces {known.state.value} ({len(known.boxes)} boxes) by {who} with "
        f"{labels.state.value} ({len(labels.boxes)} boxes) by {labels.by or 'unknown'}"
    )
    plan.labels[labels.id] = labels


def _why_kept(labels: PictureLabels, known: PictureLabels) -> str:
    """Return why the set's labels win against those of an export; empty if they do not."""
    if known.state is State.DELETED:
        return "the picture was deleted"
    new, old = _time(labels.at), _time(known.at)
    if new is not None and old is not None:
        return f"they are of {known.at}, the export's of {labels.at}" if new <= old else ""
    if labels.content_digest in known.earlier:
        return "the export has an earlier state of them"
    return ""


def _time(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
