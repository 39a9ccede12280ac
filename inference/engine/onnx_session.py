"""Loads a model into an onnxruntime session on the chosen device. Only this file opens sessions."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
from pathlib import Path
from typing import Any

import onnxruntime

from inference.core import device as devices
from inference.core.errors import DeviceUnavailable, ModelRefused
from inference.engine.engine_cache import EngineSource, publish_engines
from inference.engine.validation_run import Arrays, load_refusal
from inference.graph.cpu_model import CpuModel, read_cpu_model

log = logging.getLogger("inference.detector")

#: Log only fatal errors: onnxruntime also raises each error that it would log, and users cannot act on its
#: warnings.
_LOG_FATAL = 4
#: Run option that releases the memory which larger warm-up batches left in the arena.
_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")


class RunSwitch:
    """Ends one model run early, from another thread.

    The run then raises an error. onnxruntime looks at the switch between two nodes of the graph, so a run on
    a CPU ends within a millisecond or two. A graph that TensorRT or OpenVINO runs as one node ends with that
    node.
    """

    def __init__(self) -> None:
        #: onnxruntime's options of the run.
        self.options = onnxruntime.RunOptions()
        self.options.log_severity_level = _LOG_FATAL

    @property
    def thrown(self) -> bool:
        """Whether the run is to end."""
        return bool(self.options.terminate)

    def throw(self) -> None:
        """End the run, or prevent it if it has not begun. Any thread may call."""
        self.options.terminate = True


def open_session(
    path: Path, device: str, threads: int, source: EngineSource
) -> tuple[Any, str, CpuModel | None]:
    """Return a session, the device that it uses, and the edited model if one was loaded instead of the file.

    The device differs from the requested one only for ``auto``. Engines that TensorRT cannot load are built
    anew. Raises ModelRefused or DeviceUnavailable.
    """
    kind = devices.Device.parse(device).kind
    if kind in ("auto", "cuda", "tensorrt"):
        wanted = "cuda" if kind == "auto" else kind
        fault = loading_fault(wanted) or devices.driver_fault()
        if not fault:
            preload_cuda()
    elif kind == "cpu":
        wanted, fault = "cpu", ""
    else:
        wanted, fault = kind, loading_fault(kind)
    if not fault and wanted != "cpu":
        engines = source.open(onnxruntime.__version__) if wanted == "tensorrt" else None
        cache = None if engines is None else engines.path
        full = "cuda" if kind == "auto" else device
        providers = devices.chain(full, engine_cache=cache, profile=source.profile)
        session, fault = _try(path, wanted, providers)
        if fault and engines is not None and engines.has_engines:
            log.warning("TensorRT cannot load the engines that were kept, so they are built anew: %s", fault)
            engines.reject()
            session, fault = _try(path, wanted, providers)
        if not fault:
            publish_engines()
            return session, wanted, None
        if device == "auto":
            log.warning("there is a GPU, but onnxruntime cannot use it, so the CPU serves: %s", fault)
    if fault and device != "auto":
        raise DeviceUnavailable(f"DEVICE is {device!r}, but {fault}. {devices.NEEDS[wanted]}")
    session, edited = load_cpu_session(path, threads, read_cpu_model(path))
    return session, "cpu", edited


def loading_fault(device: str) -> str:
    """Return why this onnxruntime cannot load the device's provider; an empty text if it may be able to."""
    # A listed provider may still fail to load; a provider that is not listed never loads.
    listed = devices.PROVIDERS[device] in onnxruntime.get_available_providers()
    return "" if listed else f"this onnxruntime was built without {devices.PROVIDERS[device]}"


def _try(path: Path, device: str, providers: list[tuple[str, dict[str, Any]]]) -> tuple[Any, str]:
    """Return a session and an empty text, or None and the reason why the device is not used."""
    try:
        session = load_session(path, 1, providers)
    except ModelRefused as error:
        load_session(path, 1, devices.chain("cpu"))  # raises the same error when the file is at fault
        return None, f"it fails there: {error.found}"
    if session.get_providers()[0] != devices.PROVIDERS[device]:
        return None, f"{devices.PROVIDERS[device]} does not load (the lines above say what is missing)"
    return session, ""


def preload_cuda() -> None:
    """Load the CUDA libraries that are installed as Python packages."""
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        # It prints a line for each library that it does not find.
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            preload()
        log.debug("preloading CUDA: %s", printed.getvalue())


def load_cpu_session(path: Path, threads: int, edited: CpuModel | None) -> tuple[Any, CpuModel | None]:
    """Return a session, and ``edited`` if it was loaded instead of the file. Raises ModelRefused."""
    if edited is not None:
        try:
            return load_session(path, threads, devices.chain("cpu"), edited.model), edited
        except ModelRefused as error:
            log.warning("%s is loaded unedited; the model edited for a CPU fails: %s", path, error.found)
    return load_session(path, threads, devices.chain("cpu")), None


def load_session(
    path: Path,
    threads: int,
    providers: list[tuple[str, dict[str, Any]]],
    model: bytes | None = None,
) -> Any:
    """Return a session of the file, or of the edited ``model``. Raises ModelRefused with the reason."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin take cores from decoding. Beside one busy process, 33 images/s were served with
    # spinning and 41 without.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = _LOG_FATAL
    try:
        # With the fallback enabled, a failing run would move the session to the CPU for good.
        return onnxruntime.InferenceSession(
            model or str(path), options, providers=providers, enable_fallback=0
        )
    except Exception as error:
        raise load_refusal(str(path), error) from error


def shrink_memory(session: Any, feeds: Arrays) -> None:
    """Run ``feeds`` once, and give the memory that larger batches have used back to the operating system."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(*_SHRINK)
    session.run(None, feeds, options)
    # The supervisor disables automatic trimming by malloc, which would cause page faults for every frame.
    with contextlib.suppress(AttributeError):  # the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
