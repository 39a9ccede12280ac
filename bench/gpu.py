"""Measures how many frames per second a GPU can process, and how many of them the service reaches.

The ceiling is the inference process without a network: two inference threads that always have a full batch of
frames in memory, run it and post-process it. Its lines give, for each batch size, the time of one run, frames
per second of one thread, and frames per second of both. The lines below give frames per second of the service
for each number of workers, with live streams from client processes on the same machine. Divide the frames per
second of the service by the ceiling at the mean batch size that the line names. "cores" is the number of
cores that workers and inference process used: if the clients' machine has no more cores, the card is not the
limit.

Run it with ``python -m bench.gpu``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from bench.throughput import over_websocket, rate
from inference.core.detection_params import DetectionParams
from inference.engine.detector import Detector
from tests.helpers.load import Tally, total
from tests.helpers.media import images, model
from tests.helpers.service import Service

_INFERENCE_THREADS = 2


def bare(detector: Detector, batch: int, seconds: float) -> float:
    """Return frames per second of two inference threads that always have a full batch."""
    size = detector.model.input_height, detector.model.input_width, 3
    frames = [np.random.default_rng(n).integers(0, 255, size, np.uint8) for n in range(batch)]
    until = time.perf_counter() + seconds
    counts = [0] * _INFERENCE_THREADS
    lock = threading.Lock()

    def run(number: int) -> None:
        while time.perf_counter() < until:
            raw = detector.infer(frames, thread=number)
            with lock:
                for index in range(batch):
                    detector.postprocess(raw, index, DetectionParams())
            counts[number] += batch

    threads = [threading.Thread(target=run, args=(number,)) for number in range(_INFERENCE_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def stream(url: str, frames: list[bytes], streams: int, seconds: float) -> Tally:
    """Saturate with streams that respect their window; runs in one client process."""
    return asyncio.run(over_websocket(url, frames, seconds, mode="all", fps=0, streams=streams))


def _processor_s(service: Service) -> dict[str, float]:
    """Return the processor seconds used so far, by the workers together and by the inference process."""

    def used(process: psutil.Process) -> float:
        times = process.cpu_times()
        return times.user + times.system

    return {"workers": sum(map(used, service.workers)), "inference": used(service.inference)}


def main() -> None:
    """Print the figures of each batch size, and of the service with each number of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.gpu --model yolov9t_ball --workers 1 4 8 --streams 32",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="yolov9t_ball", help="null, a shared model or a path")
    parser.add_argument("--device", default="cuda", help="DEVICE of the service")
    parser.add_argument("--size", default="640x480", help="frame size")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of each measurement")
    parser.add_argument("--workers", nargs="*", default=["1", "4", "8"], help="numbers of workers to measure")
    parser.add_argument("--streams", type=int, default=32, help="streams of all clients together")
    parser.add_argument("--clients", type=int, default=4, help="client processes")
    parser.add_argument("--batch-max", type=int, default=16, help="BATCH_MAX of the service")
    arguments = parser.parse_args()
    width, _, height = arguments.size.partition("x")
    frames = images(size=(int(width), int(height)))
    seconds = arguments.seconds
    out = sys.stdout.write
    with tempfile.TemporaryDirectory() as folder:
        path = model(arguments.model, Path(folder))
        detector = Detector(path, version="v1", device=arguments.device, batch_max=arguments.batch_max)
        cost_s = detector.warm_up(inference_threads=_INFERENCE_THREADS).cost_s
        for batch, run_s in cost_s.items():
            out(
                f"{path.name} batch {batch:3}: {run_s * 1e3:6.2f} ms, {batch / run_s:7.0f} alone,"
                f" {bare(detector, batch, seconds / 4):7.0f} in two inference threads\n"
            )
        detector.close()
        os.environ["DEVICE"] = arguments.device
        for workers in arguments.workers:
            settings = {"MODEL_V1_PATH": str(path), "WORKERS": workers, "STREAM_MIN_FPS": "0"}
            settings |= {"BATCH_MAX": str(arguments.batch_max), "SAMPLING": "false"}
            starting = time.monotonic()
            with Service(settings) as service, ProcessPoolExecutor(arguments.clients) as clients:
                ready_s = time.monotonic() - starting
                before, begun = _processor_s(service), time.monotonic()
                share = arguments.streams // arguments.clients
                running = [
                    clients.submit(stream, service.http_url, frames, share, seconds)
                    for _ in range(arguments.clients)
                ]
                tally = total([each.result() for each in running])
                took = time.monotonic() - begun
                used = {name: (s - before[name]) / took for name, s in _processor_s(service).items()}
                batches = service.metric("object_detection_batch_size_count", version="v1")
                mean = service.metric("object_detection_batch_size_sum", version="v1") / max(1, batches)
            balance = "" if tally.balanced else "  LEDGER DOES NOT BALANCE"
            middle_ms, late_ms = tally.percentile_ms(0.5), tally.percentile_ms(0.99)
            cores = ", ".join(f"{name} {count:.1f}" for name, count in used.items())
            out(
                f"WORKERS={workers:2} {rate(tally, seconds):7.0f} fps"
                f"  p50 {middle_ms:.0f} p99 {late_ms:.0f} ms  mean batch {mean:.1f}"
                f"  cores: {cores}  ready after {ready_s:.1f} s{balance}\n"
            )


if __name__ == "__main__":
    main()
