"""One model on one device: loads, probes, warms up, runs batches. The only file that imports onnxruntime."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import io
import logging
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from inference.core import device as devices
from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.errors import DeviceUnavailable, ModelRefused
from inference.core.single_frame import WORTHWHILE_GAIN, SingleFrameChoice
from inference.core.warmup import WarmUp
from inference.engine.buffers import Buffers
from inference.engine.cpu_model import CpuModel, read_cpu_model
from inference.engine.gpu_model import read_gpu_model
from inference.engine.memory_relief import is_out_of_memory
from inference.engine.shapes import batch_sizes, fixed_shapes, graph_of, shape_profile
from inference.engine.validation_run import batch_refusal, declared, feeds_of, reason_of, try_batch
from inference.models.family import Probe, recognise
from inference.models.labels import check_ids, choose_labels
from inference.models.manifest import read_manifest
from inference.models.model import Family, ModelInfo
from inference.models.model_file import check_file
from inference.models.signature import EXPORT, image_input
from inference.postprocess.boxes import Decoder
from inference.postprocess.nms import best, suppress
from inference.preprocess.preprocess import Normaliser

log = logging.getLogger("inference.detector")

Frames = Sequence[npt.NDArray[np.uint8]]

#: A second session over all cores is not kept when a single frame takes this many times as long with it: the
#: model is too small for it to gain ever. It takes some 20 MB with YOLOX-nano.
_HOPELESS_WIDE = 1.5
#: Each bucket is timed this often, or for this long, whichever ends first.
_TIMED_RUNS = 7
_TIMED_S = 0.3
#: onnxruntime also raises what it logs as an error; its warnings are of no use to a user.
_LOG_FATAL = 4
#: Releases what larger warm-up batches left in the memory arena.
_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")


@dataclass(frozen=True, slots=True)
class RawOutputs:
    """Outputs of one run, batch first, as `Decoder` takes them; the lane's next run overwrites them."""

    arrays: tuple[npt.NDArray[np.generic], ...]


class Detector:
    """One model on one device. `infer` is thread-safe for threads that each have a lane of their own.

    ``device`` is one of ``auto``, ``cuda``, ``tensorrt``, ``openvino``, ``cpu``; only ``auto`` may end up
    on the CPU. ``threads`` share one run on a CPU; the service leaves it at 1, its lanes take the cores.
    ``engine_cache`` keeps TensorRT engines across starts. Raises ModelRefused when the file cannot be
    served and DeviceUnavailable when the device cannot be used.
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
        if device not in devices.CHOICES:
            raise DeviceUnavailable(f"DEVICE is {device!r}; allowed are {', '.join(devices.CHOICES)}")
        self.version = version
        self._path = path
        self._threads = threads
        #: Buffers by lane, bucket and width of the session; made at first use, each used by its lane alone.
        self._buffers: dict[tuple[int, int, bool], Buffers] = {}
        #: What is loaded on CUDA in place of the file; None: the file.
        self._gpu_model: bytes | None = None
        #: Sessions of their own for batch sizes after the first, on CUDA; see `_session_for`.
        self._bucket_sessions: dict[int, Any] = {}
        manifest = read_manifest(path)
        sha256 = check_file(path, manifest)
        graph = graph_of(_load(path, 1, devices.chain("cpu"))) if device == "tensorrt" else None
        batch_max = min(batch_max, manifest.batch_max or batch_max)
        profile = None
        if graph is not None:
            profile = shape_profile(image_input(str(path), graph, manifest), batch_max)
        self._session, self._provider, self._edited = _open(path, device, threads, engine_cache, profile)
        #: What the file declares, and what of it is read and how.
        self.graph = graph = graph or graph_of(self._session, self._edited)
        self.image = image_input(str(path), graph, manifest)
        if self._edited is not None and self._edited.stem is not None:
            self.image = dataclasses.replace(self.image, patches=self._edited.stem.patches)
        head = self._edited.head if self._edited is not None else None
        #: Batch sizes that `infer` runs, ascending.
        self.buckets = batch_sizes(self.image.batch, batch_max)
        given = try_batch(self._session, str(path), self.image, self.buckets[0], head)
        outputs = declared(given, head)
        #: How the outputs are read that the file declares; the session may give branches instead.
        self.layout = recognise(
            Probe(
                str(path),
                {name: array[:1] for name, array in outputs.items()},
                self.image.width,
                self.image.height,
                graph.metadata,
                manifest,
                has_sizes_input=self.image.sizes_name is not None,
            )
        )
        labels = choose_labels(str(path), manifest, graph.metadata, self.layout.class_count)
        ids = self.layout.class_ids(outputs)
        if ids is not None:
            check_ids(str(path), ids, labels)
        if head is not None and self.layout.family is not Family.YOLOX:  # a manifest may see it otherwise
            self._session, self._edited = _load_on_cpu(path, threads, read_cpu_model(path, opened=False))
            head, given = None, try_batch(self._session, str(path), self.image, self.buckets[0])
        self._outputs = self.layout.outputs if head is None else head.branches
        self._shapes = fixed_shapes(graph, self.layout, self._outputs, given)
        if self._provider == "cuda":
            self._take_raw_frames()
        if len(self.buckets) > 1:
            try:
                try_batch(self._session_for(self.buckets[1]), str(path), self.image, self.buckets[1], head)
            except ModelRefused as error:
                if not self._drops_batches(self.buckets[1], error):
                    raise
        convention = self.layout.convention
        width, height = self.image.width, self.image.height
        #: ``buckets`` is filled by `warm_up`.
        self.model = ModelInfo(
            name=manifest.name or path.stem,
            sha256=sha256,
            family=self.layout.family,
            labels=labels,
            input_width=width,
            input_height=height,
            placement=convention.placement,
            pad_value=convention.pad_value,
            provider=self._provider,
            buckets=(),
            conf_threshold=manifest.conf_threshold,
        )
        #: Bucket size to median seconds of one run; filled by `warm_up`.
        self.cost_s: dict[int, float] = {}
        self._decoder = Decoder(self.layout, width, height, len(labels), head)
        #: By lane; made at first use, each used by its lane alone.
        self._normalisers: dict[int, Normaliser] = {}
        #: Session over all cores for a single frame; None where it would never help.
        self._wide_session: Any = None
        #: Which of both sessions runs a single frame.
        self.single_frames = SingleFrameChoice(all_cores=True)

    def _take_raw_frames(self) -> None:
        """Let the GPU convert pixels, unless the edited model is refused: then the file serves as it is."""
        self._file_image = self.image
        edited = read_gpu_model(self._path, self._file_image, self.layout.convention)
        if edited is None:
            return
        model, image = edited
        try:
            session = _load(self._path, 1, devices.chain("cuda"), model)
            try_batch(session, str(self._path), image, self.buckets[0])
        except ModelRefused as error:
            log.warning("%s is loaded as it is; edited for a GPU it fails: %s", self._path, error.found)
            return
        self._session, self._gpu_model, self.image = session, model, image

    # -- start ---------------------------------------------------------------------------------------

    def warm_up(
        self,
        known: WarmUp | None = None,
        *,
        lanes: int = 1,
        on_bucket: Callable[[int], None] | None = None,
    ) -> WarmUp:
        """Run every bucket and measure it; the first runs choose kernels and claim memory.

        On a CPU the lanes share one session, so one lane measures and the others only run the smallest
        bucket; elsewhere every lane runs every bucket, all of them at once. Batches for which a device has no
        memory are done without. With what an earlier process has measured, ``known``, a CPU only runs the
        smallest bucket. ``on_bucket`` hears of each bucket before it is measured. Raises ModelRefused when a
        bucket fails.
        """
        on_cpu = self.model.provider == "cpu"
        if known is not None and on_cpu and tuple(known.cost_s) == self.buckets:
            self.cost_s = dict(known.cost_s)
            if known.wide:
                self._wide_session, _ = _load_on_cpu(self._path, _cores(), self._edited)
                self._warm(0, self.buckets[0], wide=True)
                self.single_frames = SingleFrameChoice(all_cores=known.all_cores)
            return self._warmed(lanes)
        for bucket in self.buckets:
            if on_bucket is not None:
                on_bucket(bucket)
            try:
                self.cost_s[bucket] = self._measure(bucket, lanes)
            except Exception as error:
                if not self._drops_batches(bucket, error):
                    raise batch_refusal(str(self._path), self.image, bucket, error) from error
                break
        if on_cpu:
            self._consider_wide()
            self._give_back_memory()
        return self._warmed(lanes)

    def _measure(self, bucket: int, lanes: int) -> float:
        """Return the median seconds of a run; on a device of its own, have all lanes run at once, too."""
        run = functools.partial(self._warm, 0, bucket)
        if self.model.provider == "cpu":
            return statistics.median(self._times_s(run))
        run()  # the first run of a shape prepares it, and takes far longer
        run_s = statistics.median(self._times_s(run))
        # Together they need the memory that they will need under load: it is claimed now, or never.
        with ThreadPoolExecutor(lanes) as threads:
            for done in [threads.submit(self._warm, lane, bucket) for lane in range(lanes)]:
                done.result()
        return run_s

    def _drops_batches(self, bucket: int, error: Exception) -> bool:
        """Do without batches of this size and more if they only want memory; return whether that is so."""
        if bucket == self.buckets[0] or not is_out_of_memory(error):
            return False
        log.warning(
            "%s: there is no memory for batches of %d, so smaller ones are the largest; BATCH_MAX=%d would "
            "not ask for it (%s)",
            self._path,
            bucket,
            bucket // 2,
            reason_of(error),
        )
        self.buckets = tuple(size for size in self.buckets if size < bucket)
        self.release_above(bucket - 1)
        return True

    def _warmed(self, lanes: int) -> WarmUp:
        """Make every lane's buffers, so that no frame pays for them."""
        for lane in range(lanes):
            self._warm(lane, self.buckets[0])
        self._edited = self._gpu_model = None  # all sessions are there; these are as large as the file
        self.model = dataclasses.replace(self.model, buckets=self.buckets)
        return WarmUp(
            self.cost_s, wide=self._wide_session is not None, all_cores=self.single_frames.all_cores
        )

    def _warm(self, lane: int, bucket: int, *, wide: bool = False) -> None:
        self._run([self._grey_frame()] * bucket, lane, bucket, wide=wide)

    def _grey_frame(self) -> npt.NDArray[np.uint8]:
        shape = (self.image.height, self.image.width, 3)
        return np.full(shape, self.layout.convention.pad_value, dtype=np.uint8)

    @staticmethod
    def _times_s(run: Callable[[], None]) -> list[float]:
        """Return how long ``run`` takes, several times; the first time only counts where it is long."""
        times: list[float] = []
        while len(times) <= _TIMED_RUNS and sum(times) < _TIMED_S:
            begun = time.perf_counter()
            run()
            times.append(time.perf_counter() - begun)
        return times[1:] or times

    def _consider_wide(self) -> None:
        """Load a session over all cores for single frames, and begin with whatever is quicker now.

        `SingleFrameChoice` decides again while frames are served: a neighbour that is busy at this moment
        does not decide for good.
        """
        cores = _cores()
        bucket = self.buckets[0]
        if cores < 2 or self._threads > 1:
            return
        self._wide_session, _ = _load_on_cpu(self._path, cores, self._edited)
        wide_s = min(self._times_s(lambda: self._warm(0, bucket, wide=True)))
        narrow_s = min(self._times_s(lambda: self._warm(0, bucket)))
        self.single_frames = SingleFrameChoice(all_cores=narrow_s >= wide_s * WORTHWHILE_GAIN)
        if wide_s > narrow_s * _HOPELESS_WIDE:
            self._buffers.clear()
            self._wide_session = None
        log.debug("%s: %.1f ms on one core, %.1f ms on %d", self.version, narrow_s * 1e3, wide_s * 1e3, cores)

    def _give_back_memory(self) -> None:
        """Free what only the larger batches and the start needed: a CPU hardly ever runs batches."""
        self._buffers.clear()
        options = onnxruntime.RunOptions()
        options.add_run_config_entry(*_SHRINK)
        self._session.run(None, feeds_of(self.image, self.buckets[0]), options)
        # The launcher forbids malloc to return memory by itself, so that frames cause no page faults.
        with contextlib.suppress(AttributeError):  # not glibc
            ctypes.CDLL(None).malloc_trim(0)

    # -- work ----------------------------------------------------------------------------------------

    def infer(self, frames: Frames, *, lane: int, wide: bool = False) -> RawOutputs:
        """Run 1 to max-bucket frames: uint8 (input height, input width, 3), BGR.

        The result is valid until the lane's next call. ``wide`` allows to spend all cores on a single frame,
        which has the device to itself. Raises ValueError for too many frames, and whatever the model raises.
        """
        count = len(frames)
        bucket = next((size for size in self.buckets if size >= count), 0)
        if not count or not bucket:
            raise ValueError(f"a run takes 1 to {self.buckets[-1]} frames; found {count}")
        number = self.single_frames.enter()
        if not wide or self._wide_session is None or bucket != self.buckets[0]:
            return self._run(frames, lane, bucket, wide=False)
        usual, all_cores = self.single_frames.all_cores, self.single_frames.next()
        begun = time.perf_counter()
        raw = self._run(frames, lane, bucket, wide=all_cores)
        if self.single_frames.is_last(number):  # else it had not the device to itself all the time
            self.single_frames.ran(time.perf_counter() - begun, all_cores=all_cores)
            if self.single_frames.all_cores is not usual:
                log.info(
                    "%s: single frames run on %s now", self.version, "one core" if usual else "all cores"
                )
        return raw

    def _run(self, frames: Frames, lane: int, bucket: int, *, wide: bool) -> RawOutputs:
        """Run frames in one of both sessions."""
        buffers = self._buffers.get((lane, bucket, wide))
        if buffers is None:
            session = self._wide_session if wide else self._session_for(bucket)
            buffers = Buffers(
                session,
                self.image,
                self._outputs,
                self._shapes,
                bucket,
                copies=self.model.provider != "cpu",
            )
            self._buffers[lane, bucket, wide] = buffers
        self._lay_out(frames, buffers.frames, lane)
        return RawOutputs(buffers.run())

    def _lay_out(self, frames: Frames, places: npt.NDArray[Any], lane: int) -> None:
        """Write frames as the session takes them."""
        if self.image.raw_name is not None:
            for frame, place in zip(frames, places, strict=False):
                np.copyto(place, frame)
            return
        normaliser = self._normalisers.get(lane)
        if normaliser is None:
            image = self.image
            normaliser = Normaliser(self.layout.convention, image.width, image.height, image.patches)
            self._normalisers[lane] = normaliser
        for frame, place in zip(frames, places, strict=False):
            normaliser.fill(frame, place)

    def _session_for(self, bucket: int) -> Any:
        """Return the session that runs one batch size; it is made where there is none yet.

        On CUDA each has its own: onnxruntime keeps the plans of its convolutions for one shape alone, so that
        in a common session each change of the batch size makes all of them anew. YOLOv9-t on an H200, frames
        alternating with pairs: 457 ms a run, 10 with two sessions (docs/decisions/0039).
        """
        if self._provider != "cuda" or bucket == self.buckets[0]:
            return self._session
        if bucket not in self._bucket_sessions:
            model = self._gpu_model
            if model is None and self.image.raw_name is not None:  # it was given up after the warm-up
                edited = read_gpu_model(self._path, self._file_image, self.layout.convention)
                model = edited[0] if edited is not None else None
            self._bucket_sessions[bucket] = _load(self._path, 1, devices.chain("cuda"), model)
        return self._bucket_sessions[bucket]

    def postprocess(self, raw: RawOutputs, index: int, params: DetectionParams) -> Boxes:
        """Return the boxes of one frame of a run, in model-input pixels, sorted by score."""
        candidates = self._decoder.candidates([array[index] for array in raw.arrays], params)
        return suppress(candidates, params) if self._decoder.overlapping else best(candidates, params)

    def release_above(self, size: int) -> None:
        """Give back what batches of more than ``size`` frames took; they are made again when one is run."""
        for bucket in [bucket for bucket in self._bucket_sessions if bucket > size]:
            self._bucket_sessions.pop(bucket, None)
        for key in [key for key in self._buffers if key[1] > size]:
            self._buffers.pop(key, None)

    def rehearse(self, lane: int) -> None:
        """Run every batch size once in a lane of its own. Raises what the model raises."""
        try:
            for bucket in self.buckets:
                self._warm(lane, bucket)
        finally:
            for key in [key for key in self._buffers if key[0] == lane]:
                self._buffers.pop(key, None)

    def close(self) -> None:
        """Release sessions and buffers; nothing may run any more."""
        self._buffers.clear()
        self._bucket_sessions.clear()
        self._session = self._wide_session = None


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _open(
    path: Path, device: str, threads: int, engine_cache: Path | None, profile: tuple[str, str] | None
) -> tuple[Any, str, CpuModel | None]:
    """Return a session, the device that it really uses, which may differ from ``auto`` alone, and what it was
    made of in place of the file.
    """
    if device in ("auto", "cuda", "tensorrt"):
        wanted = "cuda" if device == "auto" else device
        fault = _loading_fault(wanted) or devices.driver_fault()
        if not fault:
            _preload_cuda()
    elif device == "cpu":
        wanted, fault = "cpu", ""
    else:
        wanted, fault = device, _loading_fault(device)
    if not fault and wanted != "cpu":
        session, fault = _try(path, wanted, devices.chain(wanted, engine_cache=engine_cache, profile=profile))
        if not fault:
            return session, wanted, None
        if device == "auto":
            log.warning("there is a GPU, but onnxruntime cannot use it, so the CPU serves: %s", fault)
    if fault and device != "auto":
        raise DeviceUnavailable(f"DEVICE is {device!r}, but {fault}. {devices.NEEDS[wanted]}")
    session, edited = _load_on_cpu(path, threads, read_cpu_model(path))
    return session, "cpu", edited


def _loading_fault(device: str) -> str:
    # A provider that is listed may still fail to load; one that is not listed never will.
    listed = devices.PROVIDERS[device] in onnxruntime.get_available_providers()
    return "" if listed else f"this onnxruntime was built without {devices.PROVIDERS[device]}"


def _try(path: Path, device: str, providers: list[tuple[str, dict[str, Any]]]) -> tuple[Any, str]:
    """Return a session and an empty text, or None and why the device is not used."""
    try:
        session = _load(path, 1, providers)
    except ModelRefused as error:
        _load(path, 1, devices.chain("cpu"))  # raises the same when it is the file's fault
        return None, f"it fails there: {error.found}"
    if session.get_providers()[0] != devices.PROVIDERS[device]:
        return None, f"{devices.PROVIDERS[device]} does not load (the lines above say what is missing)"
    return session, ""


def _preload_cuda() -> None:
    """Load CUDA libraries that came as Python packages; it prints about those that did not."""
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            preload()
        log.debug("preloading CUDA: %s", said.getvalue())


def _load_on_cpu(path: Path, threads: int, edited: CpuModel | None) -> tuple[Any, CpuModel | None]:
    """Return a session, and ``edited`` if that is what was loaded. Raises ModelRefused."""
    if edited is not None:
        try:
            return _load(path, threads, devices.chain("cpu"), edited.model), edited
        except ModelRefused as error:
            log.warning("%s is loaded as it is; edited for a CPU it fails: %s", path, error.found)
    return _load(path, threads, devices.chain("cpu")), None


def _load(
    path: Path,
    threads: int,
    providers: list[tuple[str, dict[str, Any]]],
    model: bytes | None = None,
) -> Any:
    """Return a session of the file, or of what was made of it. Raises ModelRefused and says why."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning takes the cores that decode frames: 33 against 41 images/s beside one busy process.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = _LOG_FATAL
    try:
        # Without fallback: otherwise a failing run moves to the CPU by itself, for good.
        return onnxruntime.InferenceSession(
            model or str(path), options, providers=providers, enable_fallback=0
        )
    except Exception as error:
        raise ModelRefused(
            str(path),
            expected="an ONNX model that onnxruntime can load",
            found=reason_of(error),
            fix=EXPORT + ", and copy it with its external data, if any, into the same folder.",
        ) from error
