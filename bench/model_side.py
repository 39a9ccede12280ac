"""Measures the steps around a run of the model: decoding, filling the input, decoding outputs, suppression.

Each figure is the minimum of seven series, which excludes the influence of other processes. Where several
implementations of a step were considered, one line gives the time of each. The line "edits" gives the time of
a run of the model: unedited, and after each further edit of its graph; its figures are medians of series that
run in turn.

Run it with ``make bench BENCH=model_side``.
"""

from __future__ import annotations

import functools
import statistics
import sys
import timeit
from collections.abc import Callable

import cv2
import numpy as np
import onnxruntime
import simplejpeg

from inference.core.detection_params import DetectionParams
from inference.graph.cpu_model import chain_pools
from inference.graph.head import open_head
from inference.graph.onnx_graph import OnnxGraph
from inference.graph.stem import take_stem
from inference.models.layout import CONVENTIONS, Layout
from inference.models.model import Family
from inference.postprocess.boxes import MAX_CANDIDATES, Postprocessor
from inference.postprocess.nms import suppress
from inference.preprocess.preprocess import Preprocessor
from tests.conftest import SHARED
from tests.helpers.media import images
from tests.helpers.model_factory import STRIDES
from tests.helpers.network_factory import FOCUS

SIDE = 416
PARAMS = DetectionParams()


def least_ms(work: Callable[[], object], number: int = 50) -> float:
    """Return the milliseconds per call of the fastest of seven series."""
    return min(timeit.repeat(work, number=number, repeat=7)) / number * 1e3


def report(what: str, **figures_ms: float) -> None:
    """Print one line."""
    parts = ", ".join(f"{name.replace('_', ' ')} {value:.3f} ms" for name, value in figures_ms.items())
    sys.stdout.write(f"{what:12} {parts}\n")


def reading() -> None:
    """Compare two decoders of JPEG, simplejpeg and OpenCV, on the 640x480 frames of the other benchmarks."""
    frames = images()

    def each(decode: Callable[[bytes], object]) -> float:
        return least_ms(lambda: [decode(frame) for frame in frames], 1) / len(frames)

    report(
        "reading",
        simplejpeg=each(lambda frame: simplejpeg.decode_jpeg(frame, colorspace="BGR")),
        opencv=each(lambda frame: cv2.imdecode(np.frombuffer(frame, np.uint8), cv2.IMREAD_COLOR)),
    )


def crowd(count: int) -> np.ndarray:
    """Return candidates that overlap like those of a dense head: about thirty per object."""
    random = np.random.default_rng(count)
    centres = random.uniform(40, SIDE - 40, (max(1, count // 30), 2))
    boxes = np.empty((count, 6), np.float32)
    middle = centres[random.integers(0, len(centres), count)] + random.normal(0, 3, (count, 2))
    half = random.uniform(15, 25, (count, 2))
    boxes[:, :2], boxes[:, 2:4] = middle - half, middle + half
    boxes[:, 4] = random.uniform(0.25, 1, count)
    boxes[:, 5] = random.integers(0, 3, count)
    return boxes


def filling() -> None:
    """Compare ways to fill the input: by planes, by split planes, strided, and as patches of the stem."""
    frame = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    planes = np.empty((3, SIDE, SIDE), np.float32)
    preprocessor = Preprocessor(CONVENTIONS[Family.YOLO], SIDE, SIDE)

    def strided() -> None:
        for plane in range(3):
            np.multiply(frame[:, :, 2 - plane], np.float32(1 / 255), out=planes[plane])

    alike = list(np.empty((3, SIDE, SIDE), np.uint8))

    def planes_alike() -> None:
        cv2.split(frame, alike)
        for plane in range(3):
            np.multiply(alike[2 - plane], np.float32(1 / 255), out=planes[plane])

    report(
        "filling",
        by_planes=least_ms(lambda: preprocessor.fill(frame, planes)),
        planes_alike=least_ms(planes_alike),
        strided=least_ms(strided),
    )
    in_patches = Preprocessor(CONVENTIONS[Family.YOLOX], SIDE, SIDE, FOCUS)
    whole = Preprocessor(CONVENTIONS[Family.YOLOX], SIDE, SIDE)
    patches = np.empty((12, SIDE // 2, SIDE // 2), np.float32)
    report(
        "stem",
        planes=least_ms(lambda: whole.fill(frame, planes)),
        patches=least_ms(lambda: in_patches.fill(frame, patches)),
    )


def edits() -> None:
    """Run the unchanged YOLOX-nano file, then with one more edit each time; do nothing without the file."""
    path = SHARED / "models" / "yolox_nano.onnx"
    if not path.exists():
        return
    graph = OnnxGraph(memoryview(path.read_bytes()))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    runs = {}
    for name, edit in {
        "file": lambda _: None,
        "and_stem_taken": take_stem,
        "and_pools_chained": chain_pools,
        "and_head_opened": open_head,
    }.items():
        edit(graph)
        session = onnxruntime.InferenceSession(graph.write(), options, providers=["CPUExecutionProvider"])
        image = session.get_inputs()[0]
        runs[name] = functools.partial(session.run, None, {image.name: np.zeros(image.shape, np.float32)})
    # The variants run in turn and the median counts, so that load of other processes affects all variants
    # alike.
    series = [{name: timeit.timeit(run, number=3) / 3 * 1e3 for name, run in runs.items()} for _ in range(40)]
    report("edits", **{name: statistics.median(each[name] for each in series) for name in runs})


def decoding() -> None:
    """Compare decoding with scoring every row, on outputs in which 40 of 3549 rows pass the threshold."""
    rows = np.zeros((3549, 85), np.float32)
    chosen = np.random.default_rng(1).choice(3549, 40, replace=False)
    rows[chosen, 4] = 0.9
    rows[chosen, 5] = 0.8
    layout = Layout(Family.YOLOX, ("o",), 80, CONVENTIONS[Family.YOLOX], strides=STRIDES)
    decoder = Postprocessor(layout, SIDE, SIDE, 80)
    candidates = decoder.candidates([rows], PARAMS)
    report(
        "decoding",
        decode=least_ms(lambda: decoder.candidates([rows], PARAMS)),
        every_row=least_ms(lambda: (rows[:, 4:5] * rows[:, 5:]).max(axis=1)),
        suppress=least_ms(lambda: suppress(candidates, PARAMS)),
    )


def suppressing() -> None:
    """Measure suppression, whose time grows with the square of the number of candidates."""
    report(
        "suppressing",
        **{
            f"of_{count}": least_ms(functools.partial(suppress, crowd(count), PARAMS), 3)
            for count in (20, 200, MAX_CANDIDATES, 4 * MAX_CANDIDATES)
        },
    )


if __name__ == "__main__":
    reading()
    filling()
    edits()
    decoding()
    suppressing()
