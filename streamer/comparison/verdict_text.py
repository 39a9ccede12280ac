"""Says a judgement in sentences. Pure."""

from __future__ import annotations

import math

from streamer.comparison.measured_frame import SUMS
from streamer.comparison.verdict import LEAST_UNITS, Finding, Judgement, Verdict

#: A verdict on less than this is about the hours that were seen alone.
_DAY_H = 24.0


def sentence(judgement: Judgement, first: str, second: str) -> str:
    """Return the verdict in a sentence."""
    if judgement.verdict is Verdict.DIFFERS:
        return f"{second} differs: {'; '.join(differences(judgement, first, second))}."
    if judgement.verdict is Verdict.NO_DIFFERENCE:
        return f"No difference: {second} detects what {first} detects, within the margins."
    return f"Undecided: {_missing(judgement, first, second)}."


def _missing(judgement: Judgement, first: str, second: str) -> str:
    if not judgement.history:
        return "no window of five minutes with frames of both versions is over yet"
    sums = dict(zip(SUMS, judgement.total.sums, strict=True))
    if not sums["first"] + sums["second"]:
        if sums["first_foreign"] + sums["second_foreign"]:
            return f"{first} and {second} have found no box of a class that both have"
        return "neither version has found a box yet"
    if judgement.windows < LEAST_UNITS:
        return f"{judgement.windows} of {LEAST_UNITS} windows of five minutes with frames are over"
    return "what was seen so far fits versions that differ and versions that do not"


def differences(judgement: Judgement, first: str, second: str) -> list[str]:
    """Return what certainly differs, one phrase each."""
    found = [
        _phrase(each, first)
        for each in judgement.quantities
        if each.judged and each.verdict is Verdict.DIFFERS
    ]
    found += [
        f"{_amount(each)} boxes of class {each.name!r}"
        for each in judgement.classes
        if each.verdict is Verdict.DIFFERS
    ]
    return found


def remarks(judgement: Judgement, hours: float, second: str) -> list[str]:
    """Return what one must know to read the verdict."""
    found: list[str] = []
    if judgement.verdict is Verdict.UNDECIDED and judgement.windows >= LEAST_UNITS:
        unknown = [
            each.name for each in judgement.quantities if each.verdict is Verdict.UNDECIDED and each.judged
        ]
        found.append(f"Not certain yet: {', '.join(unknown)}.")
    if judgement.verdict is not Verdict.UNDECIDED and hours < _DAY_H:
        found.append(
            f"Seen were {hours:.1f} hours. A difference that comes and goes with the time of day looks like "
            "a lasting one until a day is over."
        )
    if judgement.verdict is Verdict.DIFFERS and judgement.streams > 1:
        found.append(
            f"{judgement.same_direction} of {judgement.streams} streams differ in this direction in their "
            "number of boxes."
        )
    if judgement.verdict is Verdict.DIFFERS:
        found.append(f"Different is not worse: labelled pictures say whether {second} is better.")
    return found


def _phrase(finding: Finding, first: str) -> str:
    difference = finding.difference or 0.0
    match finding.name:
        case "boxes":
            return f"it finds {_amount(finding)} boxes"
        case "disagreement":
            return f"it agrees with {first} on {100 * (1 - difference):.0f} % of what both find"
        case "score":
            way = _more(difference, "higher", "lower")
            return f"its scores of the same boxes are {abs(difference):.2f} {way}"
        case _:
            return f"its boxes move {_more(difference, 'more', 'less')} from frame to frame"


def _amount(finding: Finding) -> str:
    difference = finding.difference
    if difference is None or not math.isfinite(difference):
        return "more"
    share = abs(100 * difference)
    return (
        f"{share:.0f} % {_more(difference, 'more', 'fewer')}"
        if share >= 1
        else (f"{share:.1f} % {_more(difference, 'more', 'fewer')}")
    )


def _more(difference: float, more: str, less: str) -> str:
    return more if difference > 0 else less
