"""Input and output arrays of one inference thread, bound to the onnxruntime session of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.models.signature import ImageInput

#: Output name to its shape without the batch, and its type; only outputs whose size never varies.
Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


class Buffers:
    """Input and output arrays of one inference thread for one batch size, bound to a session.

    ``copies``: the session runs on a device of its own, so that binding an input copies it there; then
    it is bound anew for each run. On the CPU the session reads the array itself.
    """

    def __init__(
        self,
        session: Any,
        image: ImageInput,
        outputs: tuple[str, ...],
        shapes: Shapes,
        batch: int,
        *,
        copies: bool = False,
    ) -> None:
        self._copies = copies
        self._feed_name = image.feed_name
        self._session = session
        self._binding = session.io_binding()
        #: What the session takes for each frame, batch first.
        self.frames = np.zeros((batch, *image.frame_shape), dtype=image.dtype)
        self._bind_input(image.feed_name, self.frames)
        if image.sizes_name is not None:
            self._target_sizes = sizes_of(image, batch)  # bound by address, so it must live as long
            self._bind_input(image.sizes_name, self._target_sizes)
        #: Outputs whose size onnxruntime decides anew in each run.
        self._open = tuple(name for name in outputs if name not in shapes)
        self._arrays: list[npt.NDArray[np.generic] | None] = []
        for name in outputs:
            if name not in shapes:
                self._binding.bind_output(name, "cpu")  # fixes its place among the outputs
                self._arrays.append(None)
                continue
            shape, dtype = shapes[name]
            array = np.zeros((batch, *shape), dtype=dtype)
            self._binding.bind_output(name, "cpu", 0, dtype, array.shape, array.ctypes.data)
            self._arrays.append(array)
        #: The outputs where all have a fixed size; None where onnxruntime allocates some for each run.
        fixed = tuple(array for array in self._arrays if array is not None)
        self._complete = fixed if len(fixed) == len(outputs) else None

    def _bind_input(self, name: str, array: npt.NDArray[Any]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Run the batch that lies in ``frames``; the next run overwrites what is returned."""
        if self._copies:
            self._bind_input(self._feed_name, self.frames)
            self._binding.synchronize_inputs()
        for name in self._open:
            # A binding keeps what a run allocated, and the next one may need another size.
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding)
        if self._copies:
            self._binding.synchronize_outputs()
        if self._complete is not None:
            return self._complete
        values = self._binding.get_outputs()
        return tuple(
            value.numpy() if array is None else array
            for value, array in zip(values, self._arrays, strict=True)
        )


def sizes_of(image: ImageInput, batch: int) -> npt.NDArray[np.int64]:
    """Return width and height per frame: boxes come back in model-input pixels then."""
    return np.tile(np.array([[image.width, image.height]], dtype=np.int64), (batch, 1))
