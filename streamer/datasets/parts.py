"""Assigns pictures to train, val and test so that near-duplicates stay together and test stays as it is.

Pure; `export` and `label_import` keep the result in a "parts.json".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from streamer.datasets.labelled_set import PARTS


@dataclass(slots=True)
class Assignment:
    """Says which picture is in which part."""

    #: Part of each id.
    parts: dict[str, str] = field(default_factory=dict)
    #: Why a picture is in no part, by id.
    left_out: dict[str, str] = field(default_factory=dict)


#: Returns the part of a cluster of new pictures, which is given by their ids.
Choose = Callable[[Sequence[str]], str]


def assign(
    ids: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    clusters: Sequence[int],
    known: Mapping[str, str],
    choose: Choose,
) -> Assignment:
    """Return the part of each picture.

    ``pairs`` are the near-duplicates, and ``clusters`` the sets that they connect, by indices of ``ids``.
    Pictures in ``known`` keep their part. A new picture gets the part of its near-duplicates; if those are in
    different parts, it belongs to none, because it would carry one into the other. A cluster of new pictures
    gets one part as a whole, which ``choose`` decides.
    """
    result = Assignment({name: known[name] for name in ids if name in known})
    neighbours: defaultdict[int, set[int]] = defaultdict(set)
    for first, second in pairs:
        neighbours[first].add(second)
        neighbours[second].add(first)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index, cluster in enumerate(clusters):
        members[cluster].append(index)
    for cluster in sorted(members):
        new = [index for index in members[cluster] if ids[index] not in known]
        settled = {result.parts[ids[index]] for index in members[cluster] if ids[index] in known}
        if not settled and new:
            settled = {choose([ids[index] for index in new])}
        if len(settled) == 1:
            result.parts.update((ids[index], next(iter(settled))) for index in new)
        else:
            _settle_one_by_one(ids, new, neighbours, result)
    return result


def _settle_one_by_one(
    ids: Sequence[str], new: Sequence[int], neighbours: Mapping[int, set[int]], result: Assignment
) -> None:
    """Give new pictures between pictures of several parts the part of their neighbours, if it is one."""
    waiting = list(new)
    while waiting:
        near = {
            index: {result.parts[ids[other]] for other in neighbours[index] if ids[other] in result.parts}
            for index in waiting
        }
        # Every picture of the cluster is connected with a settled one, so each round settles at least one.
        index = max(waiting, key=lambda candidate: (len(near[candidate]), -candidate))
        waiting.remove(index)
        if len(near[index]) == 1:
            result.parts[ids[index]] = next(iter(near[index]))
        else:
            parts = " and ".join(part for part in PARTS if part in near[index]) or "pictures left out"
            result.left_out[ids[index]] = f"it is a near-duplicate of pictures in {parts}"


def empty_parts(counts: Counter[str]) -> list[str]:
    """Return a warning for each part without pictures."""
    needs = {"train": "train with", "val": "stop training by", "test": "evaluate with"}
    return [f"{part} is empty: there are no pictures to {needs[part]}" for part in PARTS if not counts[part]]


class Balance:
    """Chooses parts so that each has its share of the pictures, and of those with the rarest classes."""

    def __init__(
        self,
        shares: tuple[float, float, float],
        classes: Mapping[str, frozenset[str]],
        known: Mapping[str, str],
    ) -> None:
        """Take the shares of train, val and test, and the classes of each picture by id."""
        self._shares = dict(zip(PARTS, shares, strict=True))
        self._classes = classes
        self._frequency = Counter(name for names in classes.values() for name in names)
        #: Number of pictures by class and part; the class of all pictures is the empty text.
        self._counts: Counter[tuple[str, str]] = Counter()
        for name, part in known.items():
            self._count(name, part)

    def choose(self, ids: Sequence[str], hints: Mapping[str, str] | None = None) -> str:
        """Return the part that lacks most of the rarest class of these pictures, and count them there.

        If ``hints`` has parts of some of them, the strictest is taken: test before val before train.
        """
        hinted = {hints[picture] for picture in ids if picture in hints} if hints else set()
        part = max(hinted, key=PARTS.index) if hinted else self._lacking(ids)
        for picture in ids:
            self._count(picture, part)
        return part

    def _lacking(self, ids: Sequence[str]) -> str:
        names = {name for picture in ids for name in self._classes.get(picture, ())}
        rarest = min(names, key=lambda name: (self._frequency[name], name), default="")
        total = sum(self._counts[rarest, part] for part in PARTS) + len(ids)
        whole = sum(self._counts["", part] for part in PARTS) + len(ids)

        def lack(part: str) -> tuple[float, float, float]:
            share = self._shares[part]
            return (
                share * total - self._counts[rarest, part],
                share * whole - self._counts["", part],
                share,
            )

        return max((part for part in PARTS if self._shares[part] > 0), key=lack)

    def _count(self, picture: str, part: str) -> None:
        self._counts["", part] += 1
        for name in self._classes.get(picture, ()):
            self._counts[name, part] += 1
