"""Holds the class names of COCO, parses those in the metadata of a file, and renames duplicates.

`labels` decides which list a model gets.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Mapping

#: Most digits of a class id.
_MAX_DIGITS = 9
#: Longer texts are not parsed.
MAX_NAMES_BYTES = 1 << 20

#: Ids and names of the 80 categories of the COCO data set, for public models without names. The data set uses
#: 80 of the ids 1 to 90.
_CATEGORIES = """
1 person|2 bicycle|3 car|4 motorcycle|5 airplane|6 bus|7 train|8 truck|9 boat|10 traffic light
11 fire hydrant|13 stop sign|14 parking meter|15 bench|16 bird|17 cat|18 dog|19 horse|20 sheep|21 cow
22 elephant|23 bear|24 zebra|25 giraffe|27 backpack|28 umbrella|31 handbag|32 tie|33 suitcase|34 frisbee
35 skis|36 snowboard|37 sports ball|38 kite|39 baseball bat|40 baseball glove|41 skateboard|42 surfboard
43 tennis racket|44 bottle|46 wine glass|47 cup|48 fork|49 knife|50 spoon|51 bowl|52 banana|53 apple
54 sandwich|55 orange|56 broccoli|57 carrot|58 hot dog|59 pizza|60 donut|61 cake|62 chair|63 couch
64 potted plant|65 bed|67 dining table|70 toilet|72 tv|73 laptop|74 mouse|75 remote|76 keyboard
77 cell phone|78 microwave|79 oven|80 toaster|81 sink|82 refrigerator|84 book|85 clock|86 vase|87 scissors
88 teddy bear|89 hair drier|90 toothbrush
"""

_NAME_OF = {
    int(number): name
    for entry in _CATEGORIES.strip().replace("\n", "|").split("|")
    for number, _, name in [entry.partition(" ")]
}

#: Names by the index without gaps that most detectors use.
COCO_80 = tuple(_NAME_OF.values())

#: Names by the category id of the data set, which DETR and RF-DETR use. An id without a category gets the
#: name ``class_`` and its number.
COCO_91 = tuple(_NAME_OF.get(index, f"class_{index}") for index in range(91))

#: Ids from 0 to 90 that no category of COCO has. A model trained on COCO never finds them.
COCO_UNUSED_IDS = tuple(index for index in range(91) if index not in _NAME_OF)

#: Maps the values of the manifest's `labels` that stand for a list to that list.
NAMED_LISTS: Mapping[str, tuple[str, ...]] = {"coco-80": COCO_80, "coco-91": COCO_91}


def parse_names(text: str) -> tuple[str, ...]:
    """Parse names such as ``{0: 'cat', 1: 'dog'}`` or ``['cat', 'dog']``; return () for any other text.

    A class without a name becomes ``class_`` and its number.
    """
    if not text or len(text) > MAX_NAMES_BYTES:
        return ()
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ()
    if isinstance(names, dict):
        # Keys of JSON are texts.
        names = {_id_of(key): name for key, name in names.items()}
        if set(names) != set(range(len(names))):
            return ()
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list | tuple):
        return ()
    return tuple(str(name).strip() or f"class_{index}" for index, name in enumerate(names))


def _id_of(key: object) -> object:
    """Return a key as a number if it is a text of a few digits."""
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) <= _MAX_DIGITS else key


def number_apart(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names with duplicates renamed: a second "car" becomes "car_2"."""
    given = tuple(names)
    taken = set(given)
    seen: set[str] = set()
    result = []
    for name in given:
        if name in seen:
            name = next(
                numbered for number in itertools.count(2) if (numbered := f"{name}_{number}") not in taken
            )
            taken.add(name)
        seen.add(name)
        result.append(name)
    return tuple(result)


def duplicates(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that occur more than once, in the order of their first occurrence."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return tuple(name for name, count in counts.items() if count > 1)
