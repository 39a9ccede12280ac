"""Makes the input and output arrays of an inference thread and binds them to an onnxruntime session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.models.signature import ImageInput

#: Maps each output whose size never varies to its shape, without the batch, and its type.
Shapes = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]


class Buffers:
    """Holds the arrays of one inference thread for one batch size, bound to a session.

    ``copies`` says that the session runs on a device with its own memory. Binding an input copies it there,
    so :meth:`run` binds it again each time. On a CPU the session reads the array directly.
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
        #: The input array, batch first.
        self.frames = np.zeros((batch, *image.frame_shape), dtype=image.dtype)
        self._bind_input(image.feed_name, self.frames)
        if image.sizes_name is not None:
            self._target_sizes = sizes_of(image, batch)  # the binding keeps only its address
            self._bind_input(image.sizes_name, self._target_sizes)
        #: Outputs whose size may differ in each run.
        self._open = tuple(name for name in outputs if name not in shapes)
        self._arrays: list[npt.NDArray[np.generic] | None] = []
        for name in outputs:
            if name not in shapes:
                self._binding.bind_output(name, "cpu")  # reserves its place in the order of outputs
                self._arrays.append(None)
                continue
            shape, dtype = shapes[name]
            array = np.zeros((batch, *shape), dtype=dtype)
            self._binding.bind_output(name, "cpu", 0, dtype, array.shape, array.ctypes.data)
            self._arrays.append(array)
        #: All outputs, if all have a fixed size; None if onnxruntime allocates some in each run.
        fixed = tuple(array for array in self._arrays if array is not None)
        self._complete = fixed if len(fixed) == len(outputs) else None

    def _bind_input(self, name: str, array: npt.NDArray[Any]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def run(self, options: Any = None) -> tuple[npt.NDArray[np.generic], ...]:
        """Run the batch in ``frames`` and return the outputs. The next run overwrites them.

        ``options`` are onnxruntime's options of this run.
        """
        if self._copies:
            self._bind_input(self._feed_name, self.frames)
            self._binding.synchronize_inputs()
        for name in self._open:
            # A binding keeps the array that a run allocated, but the next run may need another size.
            self._binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(self._binding, options)
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
    """Return the input size for each frame, so that the model returns boxes in model-input pixels."""
    return np.tile(np.array([[image.width, image.height]], dtype=np.int64), (batch, 1))
