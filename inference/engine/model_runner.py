"""Fills the inputs of a loaded model and runs its sessions; `detector` decides which session runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core import device as devices
from inference.engine import onnx_session
from inference.engine.buffers import Buffers, Shapes
from inference.graph.cpu_model import CpuModel
from inference.models.layout import Convention
from inference.models.signature import ImageInput
from inference.preprocess.preprocess import Preprocessor

Frames = Sequence[npt.NDArray[np.uint8]]


@dataclass(slots=True)
class RawOutputs:
    """Holds the outputs of one run, batch first. The next run of the same thread overwrites them."""

    arrays: tuple[npt.NDArray[np.generic], ...]


@dataclass(frozen=True, slots=True)
class RunnerInput:
    """Describes the inputs and outputs that all sessions of a model share."""

    image: ImageInput
    convention: Convention
    #: Names of the outputs to read.
    outputs: tuple[str, ...]
    #: Shapes of those outputs whose size never varies.
    shapes: Shapes


class ModelRunner:
    """Holds the sessions of one model on one device, and the arrays of each inference thread.

    ``provider`` is the device in use. ``edited`` is the model that was loaded instead of the file on a CPU.
    ``gpu_model`` makes the model to load instead of the file on CUDA; it returns None for the file itself.
    Threads may call :meth:`run` at the same time, each with a thread number of its own.
    """

    def __init__(
        self,
        path: Path,
        provider: str,
        session: Any,
        io: RunnerInput,
        *,
        smallest: int,
        edited: CpuModel | None,
        gpu_model: Callable[[], bytes | None],
    ) -> None:
        self._path = path
        self._provider = provider
        self._io = io
        self._smallest = smallest
        #: Runs the smallest batch, and on a CPU every batch, on one core. None once closed.
        self.session: Any = session
        #: Runs a single frame on all cores of a CPU; None where that would never be faster.
        self.all_cores_session: Any = None
        #: Sessions for larger batches on CUDA; see :meth:`session_for`.
        self._batch_sessions: dict[int, Any] = {}
        self._edited = edited
        self._gpu_model = gpu_model
        #: Arrays by thread, batch size and whether the session uses all cores; made at first use.
        self.buffers: dict[tuple[int, int, bool], Buffers] = {}
        #: Preprocessors by inference thread; each is made at its first use.
        self._preprocessors: dict[int, Preprocessor] = {}

    def load_all_cores_session(self, cores: int) -> None:
        """Load the session that runs a single frame on ``cores`` cores of the CPU."""
        self.all_cores_session, _ = onnx_session.load_cpu_session(self._path, cores, self._edited)

    def forget_edited_model(self) -> None:
        """Drop the edited model, which is as large as the file, once all CPU sessions are loaded."""
        self._edited = None

    def run(
        self, frames: Frames, thread: int, batch: int, *, all_cores: bool, options: Any = None
    ) -> RawOutputs:
        """Run frames in the session for ``batch`` frames, or in the session that uses all cores.

        ``options`` are onnxruntime's options of this run.
        """
        buffers = self.buffers.get((thread, batch, all_cores))
        if buffers is None:
            session = self.all_cores_session if all_cores else self.session_for(batch)
            buffers = Buffers(
                session,
                self._io.image,
                self._io.outputs,
                self._io.shapes,
                batch,
                copies=self._provider != "cpu",
            )
            self.buffers[thread, batch, all_cores] = buffers
        self._fill(buffers.frames, frames, thread)
        return RawOutputs(buffers.run(options))

    def _fill(self, inputs: npt.NDArray[Any], frames: Frames, thread: int) -> None:
        """Write frames into the input array in the form that the session takes."""
        image = self._io.image
        if image.raw_name is not None:
            for frame, target in zip(frames, inputs, strict=False):
                np.copyto(target, frame)
            return
        preprocessor = self._preprocessors.get(thread)
        if preprocessor is None:
            preprocessor = Preprocessor(
                self._io.convention,
                image.width,
                image.height,
                image.patches,
                channels_last=image.channels_last,
            )
            self._preprocessors[thread] = preprocessor
        for frame, target in zip(frames, inputs, strict=False):
            preprocessor.fill(frame, target)

    def session_for(self, batch: int) -> Any:
        """Return the session that runs one batch size; load it if there is none yet.

        On CUDA each batch size has a session of its own, because onnxruntime keeps the plans of its
        convolutions for one shape only: in a shared session, it would compute all plans again whenever the
        batch size changes. When YOLOv9-t on an H200 runs single frames and pairs in turn, a run takes 457 ms
        in one session and 10 ms in two (docs/decisions/0039).
        """
        if self._provider != "cuda" or batch == self._smallest:
            return self.session
        if batch not in self._batch_sessions:
            self._batch_sessions[batch] = onnx_session.load_session(
                self._path, 1, devices.chain("cuda"), self._gpu_model()
            )
        return self._batch_sessions[batch]

    def release_above(self, size: int) -> None:
        """Free what batches of more than ``size`` frames use; the next such run makes it again."""
        for batch in [batch for batch in self._batch_sessions if batch > size]:
            self._batch_sessions.pop(batch, None)
        for key in [key for key in self.buffers if key[1] > size]:
            self.buffers.pop(key, None)

    def release_thread(self, thread: int) -> None:
        """Free the arrays of one inference thread."""
        for key in [key for key in self.buffers if key[0] == thread]:
            self.buffers.pop(key, None)

    def close(self) -> None:
        """Release sessions and arrays. Nothing may run afterwards."""
        self.buffers.clear()
        self._batch_sessions.clear()
        self.session = self.all_cores_session = None
