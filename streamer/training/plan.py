"""Says what one training is: where it begins, on which pictures, and for how long."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from streamer.training.views import CODES, Augmentation

#: Classes of the bundled models, whose objects appear in every orientation, and inverted.
_CODE_CLASSES = frozenset({"barcode", "qr_code", "data_matrix", "aztec", "pdf417"})
#: Words in names of classes that a mirror would make wrong, and those that turning upside down would.
_SIDES = frozenset({"left", "right", "text", "letter", "digit", "number", "arrow", "clockwise"})
_HEIGHTS = frozenset({"up", "down", "top", "bottom", "upright", "fallen"})


class Flips(StrEnum):
    """Which mirror images of the pictures are still right."""

    #: Decided by the names of the classes; see `augmentation_for`.
    AUTO = "auto"
    NONE = "none"
    HORIZONTAL = "horizontal"
    #: Also upside down and on the side, as for pictures from above.
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Plan:
    """Describes a training. The same plan on the same set continues an interrupted training."""

    classes: tuple[str, ...]
    #: Digest of the labelled set.
    set_digest: str
    #: SHA-256 digest of the model with whose weights it begins; None if it begins with random weights.
    base_sha256: str | None
    #: Input side of the network in pixels.
    side: int
    #: The training ends after these minutes, or after these steps.
    minutes: float | None
    steps: int | None
    batch: int
    learning_rate: float
    seed: int
    #: It ends earlier when so many evaluations in a row found no improvement.
    patience: int
    flips: Flips = Flips.AUTO

    def plain(self) -> dict[str, Any]:
        """Return the plan as plain lists, numbers and text, the types that a checkpoint can hold."""
        return {**asdict(self), "classes": list(self.classes), "flips": str(self.flips)}

    def progress(self, step: int, seconds: float) -> float:
        """Return the completed share, 0..1, after these steps and seconds of training."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None  # noqa: S101 - a plan has one of both
        return min(1.0, seconds / (60 * self.minutes))


def augmentation_for(classes: Sequence[str], flips: Flips) -> Augmentation:
    """Return how pictures may be changed for objects of these classes.

    Without a choice, pictures are mirrored left and right, unless a class is named after a side, a direction
    or something to read. Printed codes are also turned and inverted.
    """
    words = {word for name in classes for word in re.split(r"[^a-z]+", name.lower())}
    if flips is Flips.AUTO:
        if set(classes) <= _CODE_CLASSES:
            return CODES
        flips = Flips.NONE if words & _SIDES else Flips.HORIZONTAL
    elif flips is Flips.ALL and words & (_SIDES | _HEIGHTS):
        named = ", ".join(sorted(words & (_SIDES | _HEIGHTS)))
        raise ValueError(f"--flips all: the names of the classes have the words {named}, which flips change")
    return Augmentation(
        mirror=0.0 if flips is Flips.NONE else 0.5,
        upside_down=0.5 if flips is Flips.ALL else 0.0,
        transpose=0.5 if flips is Flips.ALL else 0.0,
        invert=0.0,
    )
