"""Compares two recordings and names every place where they differ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

#: Fields with text for people. Their wording may change; a change of any other field can break programs.
_WORDS = frozenset({"description", "detail", "help", "message", "summary", "text"})
_MOST_SHOWN = 160
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """Holds one value that has changed; it may be absent before or after."""

    #: Names and list positions that lead to the value.
    place: tuple[str | int, ...]
    before: Any
    after: Any

    @property
    def is_wording(self) -> bool:
        """Whether only the wording of a text has changed."""
        return self.place[-1:] != () and self.place[-1] in _WORDS and _ABSENT not in (self.before, self.after)

    def __str__(self) -> str:
        return f"{' > '.join(map(str, self.place))}: {_show(self.before)} -> {_show(self.after)}"


def differences(before: Any, after: Any, place: tuple[str | int, ...] = ()) -> Iterator[Difference]:
    """Yield each place that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from differences(before.get(name, _ABSENT), after.get(name, _ABSENT), (*place, name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, (*place, index))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(before, after, place)
    elif type(before) is not type(after) or before != after:
        yield Difference(place, before, after)


def _of_lists(before: list[Any], after: list[Any], place: tuple[str | int, ...]) -> Iterator[Difference]:
    """Yield what was removed, added or changed between two lists of different length."""
    texts, others = ([json.dumps(item, sort_keys=True) for item in items] for items in (before, after))
    matcher = SequenceMatcher(None, texts, others, autojunk=False)
    for _, start, end, other_start, other_end in matcher.get_opcodes():
        pairs = zip_longest(before[start:end], after[other_start:other_end], fillvalue=_ABSENT)
        for index, (one, other) in enumerate(pairs, start):
            yield from differences(one, other, (*place, index))


def report(before: Any, after: Any) -> str:
    """Return all differences as text, with those of wording in a separate last part; empty if none."""
    found = list(differences(before, after))
    contract = [str(one) for one in found if not one.is_wording]
    wording = [str(one) for one in found if one.is_wording]
    parts = []
    if contract:
        parts.append("\n  ".join(["the interface has changed:", *contract]))
    if wording:
        parts.append("\n  ".join(["only words have changed:", *wording]))
    return "\n".join(parts)


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "(absent)"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
