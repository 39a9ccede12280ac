"""Prepares inputs for measuring a model, and opens the session that runs it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from inference.core.errors import ModelRefused
from inference.engine.buffers import sizes_of
from inference.engine.detector import Detector
from inference.engine.validation_run import reason_of
from inference.models.model import ModelInfo
from inference.preprocess.letterbox import Letterbox
from inference.preprocess.preprocess import Preprocessor
from streamer.client.sources import list_images
from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, Limits
from streamer.model_zoo.download_url import BadRequest

_LOG_FATAL = 4


def open_session(path: Path, *, optimised: bool = True) -> onnxruntime.InferenceSession:
    """Return a session on all cores. If it is not ``optimised``, it can return every tensor of the graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    # Spinning threads double the time on a machine that is also busy with other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _LOG_FATAL
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def optimise_offline(source: Path, target: Path, *, fused: bool) -> None:
    """Write the graph of ``source``, as ONNX Runtime optimises it, to ``target``.

    This folds constants and removes redundant nodes. With ``fused``, it also merges nodes into operators that
    only the CPU provider has. It does not choose memory layouts for this processor, because another processor
    could not run them; ONNX Runtime chooses them at each start. Raises ModelRefused.
    """
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if fused else levels.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = _LOG_FATAL
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelRefused(
            str(source),
            expected="a model that ONNX Runtime can optimise",
            found=reason_of(error),
            fix="Run `streamer models check` for details, or export it again.",
        ) from error


Frame = npt.NDArray[np.uint8]
#: Input arrays of one run, by name.
Feed = dict[str, npt.NDArray[Any]]
#: Larger than the service's own limits, because these files are the user's own.
_LIMITS = Limits(image_bytes=64 << 20, image_px=100_000_000, image_side_px=16_384)


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Holds the paths of image files, in natural order."""

    paths: tuple[Path, ...]
    #: Names of files that cannot be read or decoded, each with the reason.
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def sample(self, count: int) -> ImageFiles:
        """Return at most ``count`` of the files, evenly spread."""
        if count >= len(self.paths):
            return self
        step = len(self.paths) / count
        return ImageFiles(tuple(self.paths[int(index * step)] for index in range(count)))

    def frames(self, model: ModelInfo) -> Iterator[tuple[Letterbox, Frame]]:
        """Yield for each image its letterbox and its pixels: uint8 BGR (input height, input width, 3)."""
        for path in self.paths:
            data = path.read_bytes()
            image = decode(data, _LIMITS.read_header(data)).pixels
            letterbox = Letterbox.fit(image.shape[1], image.shape[0], model)
            frame = np.empty((model.input_height, model.input_width, 3), np.uint8)
            letterbox.write(image, frame)
            yield letterbox, frame


def find_images(folder: Path, most: int) -> ImageFiles:
    """Return at most ``most`` images of a folder, evenly spread, without those that cannot be decoded.

    Raises SourceFailed when the folder has no images, and BadRequest when none of them can be decoded.
    """
    found = ImageFiles(tuple(list_images(folder))).sample(most)
    good, bad = [], []
    for path in found.paths:
        try:
            data = path.read_bytes()
            decode(data, _LIMITS.read_header(data))
        except ImageError as error:
            bad.append(f"{path.name}: {error.detail}")
        except OSError as error:
            bad.append(f"{path.name}: {error.strerror or error}")
        else:
            good.append(path)
    if not good:
        raise BadRequest(f"--images {folder}: the service would refuse all images; {bad[0]}")
    return ImageFiles(tuple(good), tuple(bad))


class FeedBuilder:
    """Makes the inputs of one run from one frame, and fills a fixed batch with copies of the frame."""

    def __init__(self, detector: Detector) -> None:
        # Use the input as the model file declares it; the detector's own session may take images in patches.
        image = dataclasses.replace(detector.image, patches=(), raw_name=None)
        self._image = image
        self._batch = image.batch or 1
        self._preprocessor = Preprocessor(
            detector.layout.convention, image.width, image.height, channels_last=image.channels_last
        )

    def build(self, frame: Frame) -> Feed:
        """Return the inputs by name for uint8 BGR (input height, width, 3)."""
        image = self._image
        planes = np.empty((1, *image.frame_shape), image.dtype)
        self._preprocessor.fill(frame, planes[0])
        feed: Feed = {image.name: np.repeat(planes, self._batch, axis=0)}
        if image.sizes_name is not None:
            feed[image.sizes_name] = sizes_of(image, self._batch)
        return feed
