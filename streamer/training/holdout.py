"""Chooses the pictures that training never sees, and that decide which weights are best."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence

from streamer.datasets.label_file import BadSet
from streamer.datasets.labelled_set import LabelledPicture, LabelledSet
from streamer.datasets.near_duplicates import clusters, fingerprint, near_pairs
from streamer.training.pictures import read

#: Share of the pictures that is held out, if the set has no part `val`.
SHARE = 0.15
_LEAST_PICTURES = 4
#: Finds the number of the group of near-duplicates of each picture.
Grouping = Callable[[Sequence[LabelledPicture]], Sequence[int]]


def hold_out(
    labelled: LabelledSet, seed: int, group: Grouping | None = None
) -> tuple[list[LabelledPicture], list[LabelledPicture]]:
    """Return the pictures to train on, and those that are held out.

    Held out is the part `val`. If the set has none, groups of near-duplicates from `train` are, so that no
    near-duplicate is on both sides. Raises BadSet when the set has too few pictures or no boxes.
    """
    train, val = list(labelled.part("train")), list(labelled.part("val"))
    if not val:
        if len(train) < _LEAST_PICTURES:
            raise BadSet(
                f"part `train` has {len(train)} pictures, and part `val` none; "
                f"expected {_LEAST_PICTURES} or more"
            )
        train, val = _split(train, seed, group or near_duplicates)
    if not any(len(picture.boxes) for picture in train):
        raise BadSet(f"part `train` has {len(train)} pictures, and no box; expected boxes to learn from")
    if not any(len(picture.boxes) for picture in val):
        raise BadSet(f"the {len(val)} pictures held out have no box; expected boxes to judge by")
    return train, val


def near_duplicates(pictures: Sequence[LabelledPicture]) -> list[int]:
    """Return the number of each picture's group of near-duplicates. Raises BadSet."""
    prints = [fingerprint(read(picture), picture.boxes) for picture in pictures]
    return clusters(len(prints), near_pairs(prints))


def _split(
    pictures: Sequence[LabelledPicture], seed: int, group: Grouping
) -> tuple[list[LabelledPicture], list[LabelledPicture]]:
    groups: dict[int, list[LabelledPicture]] = defaultdict(list)
    for number, picture in zip(group(pictures), pictures, strict=True):
        groups[number].append(picture)
    if len(groups) < 2:
        raise BadSet(
            f"all {len(pictures)} pictures of part `train` are near-duplicates of each other, so none can be "
            "held out; expected different pictures, or a part `val`"
        )

    def drawn(members: list[LabelledPicture]) -> bytes:
        # Ids and not numbers are drawn, so that an added picture does not move all others.
        return hashlib.sha256(f"{seed} {min(picture.id for picture in members)}".encode()).digest()

    wanted = max(1, round(SHARE * len(pictures)))
    train: list[LabelledPicture] = []
    val: list[LabelledPicture] = []
    for members in sorted(groups.values(), key=drawn):
        fits = len(val) + len(members) <= wanted or not val
        boxed = any(len(picture.boxes) for picture in members)
        if len(val) < wanted and fits and (val or boxed):
            val += members
        else:
            train += members
    return train, val
