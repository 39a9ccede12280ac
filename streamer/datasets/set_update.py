"""Writes a planned import into a labelled set, and assigns its new pictures to parts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streamer.datasets.label_file import IMAGES, PictureLabels, State
from streamer.datasets.label_import import Plan
from streamer.datasets.near_duplicates import Fingerprint, clusters, fingerprint, near_pairs
from streamer.datasets.parts import Assignment, Balance, assign, empty_parts
from streamer.datasets.sample import CannotRead
from streamer.datasets.set_folder import SetFolder
from streamer.datasets.statistics import Split
from streamer.datasets.upright import upright_pixels


@dataclass(slots=True)
class Update:
    """What an import has changed."""

    #: Number of pictures of the whole set by part.
    parts: Counter[str] = field(default_factory=Counter)
    #: Number of boxes of the whole set by class and part.
    boxes: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: What a person should know, one sentence each.
    notes: list[str] = field(default_factory=list)


def update_set(
    opened: SetFolder,
    plan: Plan,
    split: Split,
    classes: Iterable[str],
    source: str,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Update:
    """Write new pictures and changed labels; return the counts of the whole set.

    New pictures that are near-duplicates of pictures in several parts are left out. A crash leaves a set that
    can be read, and a second run of the import completes it. Raises CannotRead, DamagedSample or CannotWrite.
    """
    labels = {
        name: entry
        for name, entry in (opened.labels | plan.labels).items()
        if entry.state is not State.DELETED
    }
    assignment = _assigned(opened, plan, labels, split, on_progress)
    result = Update()
    for name, why in assignment.left_out.items():
        result.notes.append(f"{labels[name].source}: left out: {why}")
    new_parts = {name: part for name, part in assignment.parts.items() if name not in opened.parts}
    moved = [name for name, part in plan.hints.items() if name in new_parts and new_parts[name] != part]
    if moved:
        result.notes.append(
            f"{len(moved)} pictures are in another part than the export says, with their near-duplicates"
        )
    opened.write_classes(classes, source)
    for name, found in plan.images.items():
        if name in assignment.parts:
            opened.write_image(labels[name].image, found.read())
    opened.write_parts(new_parts)
    opened.write_labels(entry for name, entry in plan.labels.items() if name not in assignment.left_out)
    for entry in opened.labels.values():
        if entry.state is not State.DELETED:
            result.parts[opened.parts[entry.id]] += 1
            result.boxes.update((box.label, opened.parts[entry.id]) for box in entry.boxes)
    result.notes += empty_parts(result.parts)
    return result


def _assigned(
    opened: SetFolder,
    plan: Plan,
    labels: dict[str, PictureLabels],
    split: Split,
    on_progress: Callable[[int, int], None],
) -> Assignment:
    known = plan.parts | opened.parts
    if all(name in known for name in labels):
        return Assignment({name: known[name] for name in labels})
    # Not in the order of capture, so that a part is no section of time; rare classes come first.
    names_of = {name: frozenset(box.label for box in entry.boxes) for name, entry in labels.items()}
    frequency = Counter(label for names in names_of.values() for label in names)

    def order(name: str) -> tuple[int, str]:
        rarity = min((frequency[label] for label in names_of[name]), default=len(labels))
        return rarity, hashlib.sha256(name.encode()).hexdigest()

    ids = sorted(labels, key=order)
    prints = []
    for done, name in enumerate(ids):
        on_progress(done, len(ids))
        prints.append(_print_of(opened.folder, plan, labels[name]))
    pairs = list(near_pairs(prints))
    balance = Balance(split.shares, names_of, {name: known[name] for name in ids if name in known})
    connected = clusters(len(ids), pairs)
    return assign(ids, pairs, connected, known, lambda names: balance.choose(names, plan.hints))


def _print_of(folder: Path, plan: Plan, entry: PictureLabels) -> Fingerprint:
    path = folder / IMAGES / entry.image
    try:
        data = plan.images[entry.id].read() if entry.id in plan.images else path.read_bytes()
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror or error}") from error
    boxes = np.array([box.box for box in entry.boxes], np.float32).reshape(-1, 4)
    return fingerprint(upright_pixels(data, str(path)), boxes)
