"""Runs the inference process: loads models, warms them up and serves. `InferenceHandle` starts it.

The module runs as a fork server: it imports everything once, and each process that serves is a fork of it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Collection
from pathlib import Path

from inference.core.device import has_driver
from inference.core.errors import DeviceUnavailable, ModelRefused
from inference.core.log_output import set_up_logging
from inference.core.metric_setup import name_process
from inference.core.settings import InferenceSettings
from inference.core.warmup import load_warm_up, save_warm_up
from inference.engine.detector import Detector
from inference.engine.engine_cache import publish_engines
from inference.engine.loop import Loop
from inference.engine.metrics import InferenceMetrics
from inference.ipc.engine_report import EngineReport, read_serving
from inference.ipc.fork_server import serve_forks
from inference.ipc.group_signals import on_sigterm, settle
from inference.ipc.shared_status import EngineStatus, SharedStatus, State
from inference.models.labels import check_code_classes
from inference.models.model_copies import ModelCopies, differs

log = logging.getLogger("inference.process")

#: Exit codes after which the supervisor does not start another process.
EXIT_MODEL_REFUSED = 4
EXIT_DEVICE_UNAVAILABLE = 5

#: Providers that run models on a GPU.
_GPUS = ("cuda", "tensorrt")


def _folder(name: str) -> Path | None:
    """Return the folder after creating it if necessary; None, with a warning, if it cannot be written."""
    if not name:
        return None
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
    except OSError as error:
        log.warning("ENGINE_CACHE_DIR=%s cannot be written (%s), so engines are not kept", name, error)
        return None
    return folder


def _on_gpus(detectors: Collection[Detector]) -> bool:
    return all(detector.model.provider in _GPUS for detector in detectors)


def _default_threads(detectors: Collection[Detector]) -> int:
    """Return how many threads call the models, by the devices that the models are on.

    On a CPU there is one thread for each core. A GPU needs a second thread that prepares the next batch
    during a run. If a model only runs single frames, the host takes longer than the GPU, and more threads
    overlap that work: YOLOX-nano on an H200 serves 510 frames per second with two threads and 752 with four
    (bench/gpu.py).
    """
    if not _on_gpus(detectors):
        return len(os.sched_getaffinity(0))
    return 4 if any(detector.buckets == (1,) for detector in detectors) else 2


def _report_copies(
    kept: ModelCopies,
    given: dict[str, Path],
    detectors: dict[str, Detector],
    metrics: InferenceMetrics,
    status: EngineStatus,
) -> None:
    """Report each model that is served from its copy because its file has changed or gone."""
    changed = 0
    for index, (version, path) in enumerate(given.items()):
        is_copy = kept.of(version, path) is not None
        differing = is_copy and differs(path, detectors[version].model.sha256)
        metrics.model_kept.labels(version).set(differing)
        if differing:
            changed |= 1 << index
            log.error(
                "%s: %s has changed or gone since the service was started, so a copy of the first model is "
                "served. Restart the service to serve the new file",
                version,
                path,
            )
    status.post("models_changed", changed)


def _warm_up(
    detectors: dict[str, Detector],
    given: dict[str, Path],
    settings: InferenceSettings,
    inference_threads: int,
) -> None:
    """Warm up all models, or use the measurements of an earlier process."""
    for version, detector in detectors.items():
        begun = time.perf_counter()
        # An engine with fewer cores needs measurements of its own.
        device = detector.model.provider + (f"-{len(settings.cores)}" if settings.cores else "")
        known = load_warm_up(settings.metrics_dir, detector.model.sha256, device)
        measured = detector.warm_up(known, inference_threads=inference_threads)
        if known is None:
            save_warm_up(settings.metrics_dir, detector.model.sha256, device, measured)
        model = detector.model = dataclasses.replace(
            detector.model, file=given[version].name, loaded_at=time.time()
        )
        log.info(
            "%s: %s (%s, %d classes, %dx%d) on %s, warmed up in %.1f s; ms per run %s",
            version,
            model.name,
            model.family,
            len(model.labels),
            model.input_width,
            model.input_height,
            model.provider,
            time.perf_counter() - begun,
            {bucket: round(cost * 1e3, 1) for bucket, cost in detector.cost_s.items()},
        )


def _forget_models(
    detectors: dict[str, Detector], settings: InferenceSettings, metrics: InferenceMetrics
) -> None:
    """Publish that the models are not served any more, except those that the present engines serve, too."""
    serving = read_serving(settings.metrics_dir)
    for version, detector in detectors.items():
        if serving.get(version) != detector.model.sha256:
            metrics.forget(version, detector.model)


def serve(settings: InferenceSettings, listener: socket.socket, status: EngineStatus) -> int:
    """Load and warm up all models, serve until the supervisor ends the process, and return the exit code."""
    status.post("state", State.LOADING)
    status.post("pid", os.getpid())
    report = EngineReport(settings.metrics_dir, status.slot)
    detectors: dict[str, Detector] = {}
    given = {version: Path(path) for version, path in settings.models.items()}
    kept = ModelCopies(settings.model_keep_dir, settings.model_keep_max_bytes)
    try:
        for version, path in given.items():
            detectors[version] = Detector(
                kept.of(version, path) or path,
                version=version,
                device=settings.device,
                batch_max=settings.batch_max,
                engine_cache=_folder(settings.engine_cache_dir),
            )
        check_code_classes(
            {version: detector.model for version, detector in detectors.items()},
            settings.code_classes,
            given=settings.code_classes_given,
            restarted=bool(status.read("served")),
        )
        status.post("state", State.WARMING)
        inference_threads = settings.inference_threads or _default_threads(detectors.values())
        _warm_up(detectors, given, settings, inference_threads)
        publish_engines()  # a warm-up may build further ones
    except ModelRefused as error:
        log.error("model refused: %s", error)  # noqa: TRY400 - the text is complete
        report.write(error=str(error))
        return EXIT_MODEL_REFUSED
    except DeviceUnavailable as error:
        log.error("device unavailable: %s", error)  # noqa: TRY400 - the text is complete
        report.write(error=str(error))
        return EXIT_DEVICE_UNAVAILABLE
    metrics = InferenceMetrics(settings.index)
    _report_copies(kept, given, detectors, metrics, status)
    for version, detector in detectors.items():
        # A driver shows that a GPU was meant to be used: containers get the driver together with the device.
        fell_back = settings.device.startswith("auto") and detector.model.provider == "cpu" and has_driver()
        metrics.describe(version, detector.model, fell_back=fell_back)
    on_cpu = all(detector.model.provider == "cpu" for detector in detectors.values())
    parallel = inference_threads if on_cpu else 1
    loop = Loop(
        dict(detectors),
        listener,
        status,
        inference_threads=inference_threads,
        # A GPU executes one run at a time. More inference threads only overlap the work of the host.
        parallel=parallel,
        # With fewer frames in flight, the threads of a GPU would wait for frames to be decoded.
        prefetch_depth=inference_threads + 1 if _on_gpus(detectors.values()) else 2 * parallel,
        interactive_share=settings.interactive_share,
        metrics=metrics,
    )
    handle_sigterm = on_sigterm(status.shared_status, loop.stop)

    def on_signal(*_: object) -> None:
        if status.read("retiring"):
            loop.retire()
        handle_sigterm()

    signal.signal(signal.SIGTERM, on_signal)
    digests = {version: detector.model.sha256 for version, detector in detectors.items()}
    report.write(sha256=digests)
    # Tells the supervisor that these models can be served.
    status.post("served", 1)
    kept.start_copying(given, digests)
    loop.run()
    if status.read("retiring"):
        _forget_models(detectors, settings, metrics)
    return 0


def main() -> int:
    """Run as ``python -m inference.engine.process SETTINGS_JSON LISTENER_FD STATUS_FD SLOT CONTROL_FD``."""
    # Ignore SIGTERM until the process serves. Before that, the supervisor ends it with SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settle()
    return serve_forks(socket.socket(fileno=int(sys.argv[5])), _run)


def _run() -> int:
    """Run an inference process with the arguments of :func:`main`, and return its exit code."""
    settings = InferenceSettings.from_json(sys.argv[1])
    set_up_logging(settings.log_level, json_lines=settings.log_json)
    if settings.cores:
        os.sched_setaffinity(0, settings.cores)
    slot = int(sys.argv[4])
    # Each slot has its own role, because two processes must not write the same series.
    name_process(f"inference-{slot}" if slot else "inference")
    listener = socket.socket(fileno=int(sys.argv[2]))
    return serve(settings, listener, SharedStatus(int(sys.argv[3])).engine(slot))


if __name__ == "__main__":
    sys.exit(main())
