"""Entry point of the inference process: load, warm up, serve. Its neighbour, the handle, starts it."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Collection
from pathlib import Path

from inference.board import Board, State
from inference.detector import Detector
from inference.device import has_driver
from inference.errors import DeviceUnavailable, ModelRefused
from inference.loop import Loop
from inference.metrics import InferenceMetrics, name_process
from inference.settings import InferenceSettings
from inference.warmup import load_warm_up, save_warm_up

log = logging.getLogger("inference.process")

#: Exit codes; the supervisor does not restart into the first two.
EXIT_MODEL_REFUSED = 4
EXIT_DEVICE_UNAVAILABLE = 5

#: Providers that run batches beside the processor.
_GPUS = ("cuda", "tensorrt")

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that none is left without a supervisor."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class _JsonLines(logging.Formatter):
    """One JSON object per record, as the workers log."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _set_up_logging(settings: InferenceSettings) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_json:
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])


def _folder(name: str) -> Path | None:
    """Return a folder that can be written, made if need be; None, with a warning, where there is none."""
    if not name:
        return None
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
    except OSError as error:
        log.warning("ENGINE_CACHE_DIR=%s cannot be written (%s): engines are not kept", name, error)
        return None
    return folder


def _on_gpus(detectors: Collection[Detector]) -> bool:
    return all(detector.model.provider in _GPUS for detector in detectors)


def _default_lanes(detectors: Collection[Detector]) -> int:
    """Return how many threads call the models, by the devices that these really got.

    A GPU needs a second lane to prepare the next batch meanwhile. Where a model runs frames one by one, its
    host takes longer than the GPU, and more lanes let runs overlap: YOLOX-nano on an H200, 510 frames a
    second with two, 752 with four (tests/bench/gpu.py).
    """
    if not _on_gpus(detectors):
        return len(os.sched_getaffinity(0))
    return 4 if any(detector.buckets == (1,) for detector in detectors) else 2


def serve(settings: InferenceSettings, listener: socket.socket, board: Board) -> int:
    """Load every model, warm it up, serve until SIGTERM. Returns the exit code."""
    board.post("state", State.LOADING)
    board.post("pid", os.getpid())
    detectors: dict[str, Detector] = {}
    try:
        for version, path in settings.models.items():
            detectors[version] = Detector(
                Path(path),
                version=version,
                device=settings.device,
                batch_max=settings.batch_max,
                engine_cache=_folder(settings.engine_cache_dir),
            )
        board.post("state", State.WARMING)
        lanes = settings.lanes or _default_lanes(detectors.values())
        for version, detector in detectors.items():
            begun = time.perf_counter()
            known = load_warm_up(settings.metrics_dir, detector.model.sha256, detector.model.provider)
            measured = detector.warm_up(known, lanes=lanes)
            if known is None:
                save_warm_up(settings.metrics_dir, detector.model.sha256, detector.model.provider, measured)
            model = detector.model
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
    except ModelRefused as error:
        sys.stderr.write(f"model refused: {error}\n")
        return EXIT_MODEL_REFUSED
    except DeviceUnavailable as error:
        sys.stderr.write(f"device unavailable: {error}\n")
        return EXIT_DEVICE_UNAVAILABLE
    metrics = InferenceMetrics()
    for version, detector in detectors.items():
        # A driver is only where a GPU was meant to be used: containers get it together with the device.
        fell_back = settings.device == "auto" and detector.model.provider == "cpu" and has_driver()
        metrics.describe(version, detector.model, fell_back=fell_back)
    on_cpu = all(detector.model.provider == "cpu" for detector in detectors.values())
    parallel = lanes if on_cpu else 1
    loop = Loop(
        dict(detectors),
        listener,
        board,
        lanes=lanes,
        # A GPU is one device, however many lanes hide the host's share of the work.
        parallel=parallel,
        # More than lanes, or those of a GPU wait for frames that nobody has begun to decode.
        ahead=lanes + 1 if _on_gpus(detectors.values()) else 2 * parallel,
        interactive_share=settings.interactive_share,
        metrics=metrics,
    )
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    loop.run()
    return 0


def main() -> int:
    """Run as ``python -m inference.process SETTINGS_JSON LISTENER_FD BOARD_FD``."""
    die_with_parent()
    # The terminal's Ctrl-C goes to the whole group; only the supervisor acts on it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = InferenceSettings.from_json(sys.argv[1])
    _set_up_logging(settings)
    name_process("inference")
    listener = socket.socket(fileno=int(sys.argv[2]))
    return serve(settings, listener, Board(int(sys.argv[3])))


if __name__ == "__main__":
    sys.exit(main())
