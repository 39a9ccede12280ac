"""Defines the type of the boxes that a detector returns for one frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

#: float32 array of shape (N, 6): x1, y1, x2, y2, score, class id; sorted by score, highest first.
#: Inside ``inference``, coordinates are pixels of the model input; elsewhere, of the upright original image.
Boxes = npt.NDArray[np.float32]

NO_BOXES: Boxes = np.empty((0, 6), dtype=np.float32)
NO_BOXES.setflags(write=False)
