"""Bound memory: the session reads the values that were written last, on the CPU and on devices that copy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from inference.engine.buffers import Buffers, sizes_of
from inference.models.signature import ImageInput

IMAGE = ImageInput("images", half=False, batch=None, width=4, height=2, sizes_name="orig_target_sizes")


def at(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Return the memory at an address as an array, without copying it."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


class Session:
    """Replaces an ONNX Runtime session by one that adds up its image input.

    With ``copies`` it copies each input when it is bound, as the binding of a GPU does.
    """

    def __init__(self, *, copies: bool) -> None:
        self.copies = copies
        self.inputs: dict[str, np.ndarray[Any, Any]] = {}
        self.outputs: dict[str, np.ndarray[Any, Any]] = {}
        self.synchronized = 0

    def io_binding(self) -> Session:
        return self

    def bind_input(self, name: str, device: str, number: int, dtype: Any, shape: Any, address: int) -> None:
        assert (device, number) == ("cpu", 0)
        memory = at(address, tuple(shape), dtype)
        self.inputs[name] = memory.copy() if self.copies else memory

    def bind_output(self, name: str, device: str, number: int, dtype: Any, shape: Any, address: int) -> None:
        assert (device, number) == ("cpu", 0)
        self.outputs[name] = at(address, tuple(shape), dtype)

    def run_with_iobinding(self, binding: Session, _options: object = None) -> None:
        assert binding is self
        self.outputs["sum"][:, 0] = self.inputs["images"].sum(axis=(1, 2, 3))

    def synchronize_inputs(self) -> None:
        self.synchronized += 1

    def synchronize_outputs(self) -> None:
        self.synchronized += 1


@pytest.mark.parametrize("copies", [False, True])
def test_each_run_sees_what_was_written_last(copies: bool) -> None:
    session = Session(copies=copies)
    shapes = {"sum": ((1,), np.dtype(np.float32))}
    buffers = Buffers(session, IMAGE, ("sum",), shapes, 2, copies=copies)
    for value in (1.0, 2.0):
        buffers.frames[0] = value
        buffers.frames[1] = -value
        (sums,) = buffers.run()
        assert sums[:, 0].tolist() == [24 * value, -24 * value]
    assert session.synchronized == (4 if copies else 0)
    assert session.inputs["orig_target_sizes"].tolist() == [[4, 2], [4, 2]]


def test_target_sizes_are_width_and_height_for_each_frame() -> None:
    assert sizes_of(IMAGE, 3).tolist() == [[4, 2]] * 3
