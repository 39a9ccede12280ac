"""Parses the parameters of a predict request, from the query or a form, into DetectionParams."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from inference.core.detection_params import DetectionParams
from streamer.http.problem_details import Problem
from streamer.protocol.client_messages import MAX_CLASSES, MAX_DETECTIONS, MAX_NAME_CHARS

NAMES = ("conf_threshold", "iou_threshold", "max_detections", "classes", "agnostic_nms", "collect")
_YES, _NO = frozenset(("1", "true", "yes")), frozenset(("0", "false", "no"))
#: How many labels an error message lists; it gives only the number of the others.
_SHOWN_LABELS = 20


def read_parameters(
    pairs: Collection[tuple[str, str]], labels: Sequence[str], defaults: DetectionParams
) -> DetectionParams:
    """Return the parameters in ``pairs`` of name and text; ``defaults`` apply to absent ones.

    Refuses unknown names, and repeated names except ``classes``. Raises Problem 400, which names the field,
    the value found and the values allowed.
    """
    if not pairs:
        return defaults
    single: dict[str, str] = {}
    classes: list[str] = []
    for name, text in pairs:
        if name == "classes":
            classes.extend(text.split(","))
        elif name not in NAMES:
            raise Problem.bad_request(
                f"Field `{name[:100]}` is not known; allowed: {', '.join(NAMES)}.",
                code="unknown_parameter",
                field=name[:100],
                allowed=list(NAMES),
            )
        elif name in single:
            raise Problem.invalid_parameter(name, f"{single[name]} and {text}", "one value")
        else:
            single[name] = text
    if len(classes) > MAX_CLASSES:
        raise Problem.invalid_parameter("classes", f"{len(classes)} items", f"at most {MAX_CLASSES}")
    numbers = {label: number for number, label in reversed(tuple(enumerate(labels)))} if classes else {}
    return DetectionParams(
        conf_threshold=_share("conf_threshold", single, defaults.conf_threshold),
        iou_threshold=_share("iou_threshold", single, defaults.iou_threshold),
        max_detections=_count("max_detections", single, defaults.max_detections),
        class_ids=tuple(dict.fromkeys(_class_id(item.strip(), labels, numbers) for item in classes)),
        agnostic_nms=_flag("agnostic_nms", single.get("agnostic_nms"), default=defaults.agnostic_nms),
    )


def read_collect(pairs: Collection[tuple[str, str]]) -> bool:
    """Return whether the images of a request may be kept as samples, which is the default.

    Raises Problem 400, which names the value found and the values allowed.
    """
    if not pairs:
        return True
    text = next((text for name, text in pairs if name == "collect"), None)
    return _flag("collect", text, default=True)


def read_name(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the stream's name, empty if there is none. Raises Problem 400 if it is too long."""
    name = next((text for name, text in pairs if name == "name"), "")
    if len(name) > MAX_NAME_CHARS:
        raise Problem.invalid_parameter("name", f"{len(name)} characters", f"at most {MAX_NAME_CHARS}")
    return name


def _share(name: str, single: dict[str, str], default: float) -> float:
    """Parse a number from 0 to 1."""
    text = single.get(name)
    if text is None:
        return default
    try:
        # float() would accept 1_0 as ten.
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # also refuses NaN
        raise Problem.invalid_parameter(name, text, "a number from 0 to 1")
    return value


def _flag(name: str, text: str | None, *, default: bool) -> bool:
    """Parse a truth value."""
    if text is None:
        return default
    if text.lower() not in _YES | _NO:
        raise Problem.invalid_parameter(name, text, "1 or 0")
    return text.lower() in _YES


def _count(name: str, single: dict[str, str], default: int) -> int:
    """Parse a whole number from 1 to MAX_DETECTIONS."""
    text = single.get(name)
    if text is None:
        return default
    digits = text.strip()
    value = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0
    if not 1 <= value <= MAX_DETECTIONS:
        raise Problem.invalid_parameter(name, text, f"a whole number from 1 to {MAX_DETECTIONS}")
    return value


def _class_id(item: str, labels: Sequence[str], numbers: Mapping[str, int]) -> int:
    """Return the class id of a label or of a number; an item that is both is treated as a label."""
    if item in numbers:
        return numbers[item]
    if item.isascii() and item.isdigit() and len(item) <= 9 and int(item) < len(labels):
        return int(item)
    shown = ", ".join(labels[:_SHOWN_LABELS])
    if len(labels) > _SHOWN_LABELS:
        shown += f" and {len(labels) - _SHOWN_LABELS} more"
    raise Problem.invalid_parameter("classes", item, f"class ids 0 to {len(labels) - 1} and labels: {shown}")
