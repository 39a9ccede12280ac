"""Says what a column's unit means: the smallest change that matters, and how much days usually differ. Pure.

Without these, a column that never varied in the reference would flag the smallest change, and one day of
reference would either flag the next day's weather or nothing at all.
"""

from __future__ import annotations

from streamer.drift.rows import CLASSES, PREDICTION

#: By column: the smallest change that is worth a report, and the largest that two ordinary days may have
#: between them at the same time, both in the column's unit.
_UNITS = {
    "brightness": (1.0, 30.0),
    "contrast": (0.7, 15.0),
    "dark_frac": (0.02, 0.2),
    "bright_frac": (0.02, 0.15),
    "saturation": (0.015, 0.1),
    "colorfulness": (0.7, 10.0),
    "log_sharpness": (0.1, 0.5),
    "noise": (0.15, 1.0),
    "jpeg_bpp": (0.05, 0.3),
    "aspect": (0.01, 0.02),
    "log_mpix": (0.01, 0.02),
    "frame_diff": (0.3, 2.5),
    "n_boxes": (0.3, 2.0),
    "n_low": (0.2, 1.0),
    "no_box": (0.08, 0.4),
    "conf_mean": (0.025, 0.08),
    "conf_max": (0.025, 0.08),
    "conf_min": (0.025, 0.08),
    "frac_low": (0.04, 0.2),
    "area_med": (0.004, 0.02),
    "area_max": (0.006, 0.03),
    "log_aspect_med": (0.08, 0.3),
    "cx_med": (0.025, 0.1),
    "cy_med": (0.025, 0.1),
    "edge_frac": (0.04, 0.2),
    "n_classes": (0.15, 0.8),
    "overlap_max": (0.03, 0.15),
    CLASSES: (0.08, 0.3),
}
FLOORS = {name: pair[0] for name, pair in _UNITS.items()}
BETWEEN_DAYS = {name: pair[1] for name, pair in _UNITS.items()}

#: Columns of boxes. A few objects decide half an hour of them, so they are judged over at least two hours, …
OF_BOXES = frozenset((*PREDICTION, CLASSES, "frame_diff"))
#: … these, which are means over objects, from half an hour on, as the number of boxes allows, …
OF_OBJECTS = frozenset(("conf_mean", "frac_low", "area_med", "log_aspect_med", "cx_med", "cy_med", CLASSES))
#: … and these, which depend on one object or on how much is going on, over six.
ERRATIC = frozenset(
    (
        "n_boxes",
        "no_box",
        "n_low",
        "n_classes",
        "conf_min",
        "conf_max",
        "area_max",
        "edge_frac",
        "overlap_max",
        "frame_diff",
    )
)

#: Columns whose deviations are skewed: shares close to 0 rise exponentially with their cause, and one large
#: object or one of a rare class decides a mean.
SKEWED = frozenset(("dark_frac", "bright_frac", "area_med", CLASSES))

#: Columns of the image that one cause moves together. A change of them may be clear together and not alone.
TOPICS = {
    "light": ("brightness", "contrast", "dark_frac", "bright_frac", "saturation", "colorfulness"),
    "detail": ("contrast", "log_sharpness", "noise", "jpeg_bpp"),
}
