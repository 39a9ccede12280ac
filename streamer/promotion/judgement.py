"""Judges whether a model may take the place of another one, by their scores on the same pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model scored on the part of a set."""

    name: str
    sha256: str
    map50: float
    map50_95: float
    #: Average precision at an IoU of 0.5 by class; None for a class without objects.
    ap50: dict[str, float | None]
    false_per_empty: float | None
    #: Further figures for the manifest: intervals, by class and size, time of a run.
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "map50": round(self.map50, 4),
            "map50_95": round(self.map50_95, 4),
            "ap50": self.ap50,
            "false_per_empty_picture": self.false_per_empty,
            **self.details,
        }


@dataclass(frozen=True, slots=True)
class Change:
    """By how much mAP50 changes, and the 95 % interval of that from a paired bootstrap over the pictures."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The candidate beside the model that it replaces."""

    candidate: Figures
    #: None if there is none, or if it knows none of the set's classes; then there is nothing to compare.
    served: Figures | None
    change: Change | None
    #: By how much mAP50 may fall.
    margin: float
    #: Classes of the served model that the candidate lacks.
    lost: tuple[str, ...]

    @property
    def is_worse(self) -> bool:
        """Whether the candidate's mAP50 is lower by more than the margin."""
        return self.change is not None and self.change.value < -self.margin

    @property
    def text(self) -> str:
        """The judgement in one sentence."""
        if self.served is None or self.change is None:
            return "nothing to compare with: no served model knows the classes of the set"
        change = self.change
        numbers = f"mAP50 {self.candidate.map50:.3f} against {self.served.map50:.3f}"
        interval = f"{change.value:+.3f}, 95 % interval {change.low:+.3f} to {change.high:+.3f}"
        if self.is_worse:
            return f"worse: {numbers} ({interval}), which is more than {self.margin:g} lower"
        if change.low > 0:
            return f"better: {numbers} ({interval})"
        doubt = "; it may be worse by more than the margin" if change.low < -self.margin else ""
        return f"not worse: {numbers} ({interval}){doubt}"
