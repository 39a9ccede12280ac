"""Runs one model on one device: recognises its family, warms it up, runs batches and returns boxes."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from inference.core import device as devices
from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.errors import ModelRefused
from inference.core.single_frame import WORTHWHILE_GAIN, SingleFrameChoice
from inference.core.warmup import WarmUp, run_times_s
from inference.engine import onnx_session
from inference.engine.engine_cache import EngineSource
from inference.engine.gpu_model import read_gpu_model
from inference.engine.memory_relief import is_out_of_memory
from inference.engine.model_runner import Frames, ModelRunner, RawOutputs, RunnerInput
from inference.engine.onnx_session import RunSwitch
from inference.engine.shapes import batch_sizes, fixed_shapes, graph_of, shape_profile
from inference.engine.validation_run import (
    batch_refusal,
    declared,
    feeds_of,
    layout_of,
    reason_of,
    try_batch,
)
from inference.graph.cpu_model import read_cpu_model
from inference.models.class_ids import name_classes
from inference.models.labels import choose_code_classes
from inference.models.lineage import lineage_of
from inference.models.manifest import read_manifest
from inference.models.model import Family, ModelInfo
from inference.models.model_card import card_of
from inference.models.model_file import check_file
from inference.models.signature import image_input
from inference.postprocess.boxes import Postprocessor
from inference.postprocess.nms import best, suppress

log = logging.getLogger("inference.detector")

#: The session over all cores, some 20 MB, is dropped when a frame takes this many times as long with it.
_MUCH_SLOWER = 1.5


class Detector:
    """Runs one model on one device. Several threads may call `infer` at once, each with its own number.

    ``device`` is a text that `Device` parses; only ``auto`` may end up on the CPU, where ``threads`` cores
    share one run: 1 in the service, whose inference threads use all. ``engine_cache`` keeps TensorRT's
    engines. Raises ModelRefused when the file cannot be served and DeviceUnavailable when the device cannot
    be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        version: str,
        device: str,
        batch_max: int,
        threads: int = 1,
        engine_cache: Path | None = None,
    ) -> None:
        device = devices.select(device)
        self.version = version
        self._path = path
        self._threads = threads
        #: Edited model to load on CUDA instead of the file; None to load the file, and after the warm-up.
        self._gpu_model: bytes | None = None
        manifest = read_manifest(path)
        sha256 = check_file(path, manifest)
        batch_max = min(batch_max, manifest.batch_max or batch_max)
        graph, profile = None, None
        if device == "tensorrt":
            graph = graph_of(onnx_session.load_session(path, 1, devices.chain("cpu")))
            profile = shape_profile(image_input(str(path), graph, manifest), batch_max)
        source = EngineSource(engine_cache, sha256, profile)
        session, provider, edited = onnx_session.open_session(path, device, threads, source)
        #: The inputs and outputs that the file declares.
        self.graph = graph = graph or graph_of(session, edited)
        #: The image input as the session takes it.
        self.image = image_input(str(path), graph, manifest)
        if edited is not None and edited.stem is not None:
            self.image = dataclasses.replace(self.image, patches=edited.stem.patches)
        head = edited.head if edited is not None else None
        #: Batch sizes that `infer` runs, ascending.
        self.buckets = batch_sizes(self.image.batch, batch_max)
        given = try_batch(session, str(path), self.image, self.buckets[0], head)
        outputs = declared(given, head)
        #: How to read the outputs that the file declares. With an opened head, the session has other outputs.
        self.layout = layout_of(str(path), outputs, self.image, graph.metadata, manifest)
        labels, first_id = name_classes(str(path), manifest, graph.metadata, self.layout, outputs)
        if head is not None and self.layout.family is not Family.YOLOX:
            # The manifest names another family than the opened head belongs to.
            session, edited = onnx_session.load_cpu_session(path, threads, read_cpu_model(path, opened=False))
            head, given = None, try_batch(session, str(path), self.image, self.buckets[0])
        output_names = self.layout.outputs if head is None else head.branches
        shapes = fixed_shapes(graph, self.layout, output_names, given)
        self._file_image = self.image
        if provider == "cuda":
            session = self._session_for_raw_frames() or session
        self._runner = ModelRunner(
            path,
            provider,
            session,
            RunnerInput(self.image, self.layout.convention, output_names, shapes),
            smallest=self.buckets[0],
            edited=edited,
            gpu_model=self._current_gpu_model,
        )
        if len(self.buckets) > 1:
            try:
                second = self._runner.session_for(self.buckets[1])
                try_batch(second, str(path), self.image, self.buckets[1], head)
            except ModelRefused as error:
                if not self._drop_batches(self.buckets[1], error):
                    raise
        convention, width, height = self.layout.convention, self.image.width, self.image.height
        #: Facts about the model that workers receive. `warm_up` fills in the ``buckets``.
        self.model = ModelInfo(
            name=manifest.name or path.stem,
            sha256=sha256,
            family=self.layout.family,
            labels=labels,
            input_width=width,
            input_height=height,
            placement=convention.placement,
            pad_value=convention.pad_value,
            provider=provider,
            buckets=(),
            conf_threshold=manifest.conf_threshold,
            agnostic_nms=bool(manifest.agnostic_nms),
            code_classes=choose_code_classes(str(path), manifest, labels),
            lineage=lineage_of(manifest),
            card=card_of(manifest, labels),
        )
        #: Batch size to median seconds of one run; filled by `warm_up`.
        self.cost_s: dict[int, float] = {}
        self._postprocessor = Postprocessor(
            self.layout, width, height, len(labels), head, first_class_id=first_id
        )
        #: Chooses whether a single frame runs on one core or on all.
        self.single_frames = SingleFrameChoice(all_cores=True)

    def _session_for_raw_frames(self) -> object | None:
        """Return a session that converts pixels on the GPU; None to use the file unedited."""
        if (edited := read_gpu_model(self._path, self._file_image, self.layout.convention)) is None:
            return None
        model, image = edited
        try:
            session: object = onnx_session.load_session(self._path, 1, devices.chain("cuda"), model)
            try_batch(session, str(self._path), image, self.buckets[0])
        except ModelRefused as error:
            log.warning("%s is loaded unedited; edited for a GPU it fails: %s", self._path, error.found)
            return None
        self._gpu_model, self.image = model, image
        return session

    def _current_gpu_model(self) -> bytes | None:
        """Return the model to load on CUDA instead of the file; edit it again if it was dropped."""
        if self._gpu_model is None and self.image.raw_name is not None:
            edited = read_gpu_model(self._path, self._file_image, self.layout.convention)
            return edited[0] if edited else None
        return self._gpu_model

    # -- start ---------------------------------------------------------------------------------------

    def warm_up(
        self,
        known: WarmUp | None = None,
        *,
        inference_threads: int = 1,
        on_bucket: Callable[[int], None] | None = None,
    ) -> WarmUp:
        """Run and time every batch size. The first runs choose kernels and claim memory.

        On a CPU all inference threads share one session: one thread measures, and the others only run the
        smallest batch size. On other devices every thread runs every batch size, all of them at once. Batch
        sizes for which a device has no memory are dropped. ``known`` holds the measurements of an earlier
        process; with them, a CPU only runs the smallest batch size. ``on_bucket`` is called with each batch
        size before it is measured. Raises ModelRefused when a batch size fails.
        """
        on_cpu = self.model.provider == "cpu"
        if known is not None and on_cpu and tuple(known.cost_s) == self.buckets:
            self.cost_s = dict(known.cost_s)
            if known.all_cores_session:
                self._runner.load_all_cores_session(_cores())
                self._warm(0, self.buckets[0], all_cores=True)
                self.single_frames = SingleFrameChoice(all_cores=known.all_cores)
            return self._finish_warm_up(inference_threads)
        for bucket in self.buckets:
            if on_bucket is not None:
                on_bucket(bucket)
            try:
                self.cost_s[bucket] = self._measure(bucket, inference_threads)
            except Exception as error:
                if not self._drop_batches(bucket, error):
                    raise batch_refusal(str(self._path), self.image, bucket, error) from error
                break
        if on_cpu:
            self._try_all_cores()
            # A CPU hardly ever runs batches, so the memory that only they needed is returned.
            self._runner.buffers.clear()
            onnx_session.shrink_memory(self._runner.session, feeds_of(self.image, self.buckets[0]))
        return self._finish_warm_up(inference_threads)

    def _measure(self, bucket: int, inference_threads: int) -> float:
        """Return the median seconds of a run. On other devices than a CPU, also run all threads at once."""
        run = functools.partial(self._warm, 0, bucket)
        if self.model.provider == "cpu":
            return statistics.median(run_times_s(run))
        run()  # the first run of a shape prepares it, and takes far longer
        run_s = statistics.median(run_times_s(run))
        # Claims the memory that concurrent runs need under load, so that a lack of it shows now.
        with ThreadPoolExecutor(inference_threads) as pool:
            for done in [pool.submit(self._warm, thread, bucket) for thread in range(inference_threads)]:
                done.result()
        return run_s

    def _drop_batches(self, bucket: int, error: Exception) -> bool:
        """Drop this batch size and larger ones if they only lack memory; return whether they were dropped."""
        if bucket == self.buckets[0] or not is_out_of_memory(error):
            return False
        log.warning(
            "%s: there is no memory for batches of %d, so smaller ones are the largest; set BATCH_MAX=%d to "
            "avoid the attempt (%s)",
            self._path,
            bucket,
            bucket // 2,
            reason_of(error),
        )
        self.buckets = tuple(size for size in self.buckets if size < bucket)
        self.release_above(bucket - 1)
        return True

    def _finish_warm_up(self, inference_threads: int) -> WarmUp:
        """Make the arrays of every thread, so that no frame has to wait for them; return the measurements."""
        for thread in range(inference_threads):
            self._warm(thread, self.buckets[0])
        # All sessions are loaded, and the edited models are as large as the file.
        self._gpu_model = None
        self._runner.forget_edited_model()
        self.model = dataclasses.replace(self.model, buckets=self.buckets)
        return WarmUp(
            self.cost_s,
            all_cores_session=self._runner.all_cores_session is not None,
            all_cores=self.single_frames.all_cores,
        )

    def _warm(self, thread: int, bucket: int, *, all_cores: bool = False) -> None:
        """Run a batch of grey frames."""
        shape = (self.image.height, self.image.width, 3)
        frame = np.full(shape, self.layout.convention.pad_value, dtype=np.uint8)
        self._runner.run([frame] * bucket, thread, bucket, all_cores=all_cores)

    def _try_all_cores(self) -> None:
        """Load a session over all cores for single frames, and begin with the session that is faster now.

        `SingleFrameChoice` keeps comparing both while frames are served, so a process that happens to use the
        cores during this measurement has no lasting effect.
        """
        if (cores := _cores()) < 2 or self._threads > 1:
            return
        bucket = self.buckets[0]
        self._runner.load_all_cores_session(cores)
        all_cores_s = min(run_times_s(lambda: self._warm(0, bucket, all_cores=True)))
        one_core_s = min(run_times_s(lambda: self._warm(0, bucket)))
        self.single_frames = SingleFrameChoice(all_cores=one_core_s >= all_cores_s * WORTHWHILE_GAIN)
        if all_cores_s > one_core_s * _MUCH_SLOWER:
            self._runner.buffers.clear()
            self._runner.all_cores_session = None
        log.debug(
            "%s: %.1f ms on one core, %.1f ms on %d", self.version, one_core_s * 1e3, all_cores_s * 1e3, cores
        )

    # -- work ----------------------------------------------------------------------------------------

    def infer(
        self, frames: Frames, *, thread: int, single: bool = False, switch: RunSwitch | None = None
    ) -> RawOutputs:
        """Run 1 to max-bucket frames: uint8 (input height, input width, 3), BGR.

        The result is valid until the next call with the same ``thread``. ``single`` says that nothing else
        waits or runs, so that one frame may use all cores. ``switch`` can end the run early. Raises
        ValueError for no or too many frames, and errors of the model.
        """
        count = len(frames)
        bucket = next((size for size in self.buckets if size >= count), 0)
        if not count or not bucket:
            raise ValueError(f"a run takes 1 to {self.buckets[-1]} frames; found {count}")
        number = self.single_frames.enter()
        if not single or self._runner.all_cores_session is None or bucket != self.buckets[0]:
            return self._runner.run(
                frames, thread, bucket, all_cores=False, options=switch and switch.options
            )
        usual, all_cores = self.single_frames.all_cores, self.single_frames.next()
        begun = time.perf_counter()
        raw = self._runner.run(frames, thread, bucket, all_cores=all_cores)
        if self.single_frames.is_last(number):  # otherwise another run has slowed it down
            self.single_frames.ran(time.perf_counter() - begun, all_cores=all_cores)
            if self.single_frames.all_cores is not usual:
                log.info(
                    "%s: single frames run on %s now", self.version, "one core" if usual else "all cores"
                )
        return raw

    def postprocess(self, raw: RawOutputs, index: int, params: DetectionParams) -> Boxes:
        """Return the boxes of one frame of a run, in model-input pixels, sorted by score."""
        candidates = self._postprocessor.candidates(self._postprocessor.frame(raw.arrays, index), params)
        return suppress(candidates, params) if self._postprocessor.overlapping else best(candidates, params)

    def release_above(self, size: int) -> None:
        """Free what batches of more than ``size`` frames use; the next such run makes it again."""
        self._runner.release_above(size)

    def rehearse(self, thread: int) -> None:
        """Run every batch size once as ``thread``, which no other caller uses. Raises the model's errors."""
        try:
            for bucket in self.buckets:
                self._warm(thread, bucket)
        finally:
            self._runner.release_thread(thread)

    def close(self) -> None:
        """Release sessions and arrays. Nothing may run afterwards."""
        self._runner.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0))
