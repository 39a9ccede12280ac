"""The columns of a row, one observation of one stream; everything else in this folder counts on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Rises when a column changes its meaning: a reference of another version cannot be compared.
FEATURE_VERSION = 1

IMAGE = (
    "brightness",
    "contrast",
    "dark_frac",
    "bright_frac",
    "saturation",
    "colorfulness",
    "log_sharpness",
    "noise",
    "jpeg_bpp",
    "aspect",
    "log_mpix",
    "frame_diff",
)
PREDICTION = (
    "n_boxes",
    "n_low",
    "no_box",
    "conf_mean",
    "conf_max",
    "conf_min",
    "frac_low",
    "area_med",
    "area_max",
    "log_aspect_med",
    "cx_med",
    "cy_med",
    "edge_frac",
    "n_classes",
    "overlap_max",
)
NUMERIC = IMAGE + PREDICTION
#: One word for each row; of the boxes of a row, however many, `classes` counts the labels.
CATEGORICAL = ("top_class", "resolution", "source")
CLASSES = "classes"
BAGS = (*CATEGORICAL, CLASSES)
ALL = NUMERIC + BAGS
#: What says as much of the model as of the picture: compared only with rows of the same model.
OF_MODEL = frozenset((*PREDICTION, "top_class", CLASSES))

#: Words with how often each was counted.
Bag = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One observation. ``numbers`` is float32 in the order of ``NUMERIC``, NaN where there is none."""

    #: Arrival of the frame, unix seconds.
    at: float
    #: Name of the stream, and which of the streams of that name.
    stream: str
    session: int
    #: Version and digest of the model, as `v1:0123456789ab`.
    model: str
    numbers: npt.NDArray[np.float32]
    top_class: str
    resolution: str
    source: str
    classes: Bag

    def bag(self, column: str) -> Bag:
        """Return the words of a column of ``BAGS``, none where it is unknown. Raises AttributeError."""
        words: str | Bag = getattr(self, column)
        if isinstance(words, str):
            return ((words, 1),) if words else ()
        return words


def model_key(version: str, sha256: str) -> str:
    """Return how rows name a model."""
    return f"{version}:{sha256[:12]}"
