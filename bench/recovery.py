"""Measures how long no results arrive after the inference process is killed under load.

Twenty streams send frames while the process is killed. Each line gives the time from the kill to the first
result of any stream and to the first result of every stream. Beside it stands the floor: the time that a
separate process takes to load the same model and run it once. The last line divides the medians; 1.0 would
mean that a restart costs no more than loading the model. Each line also counts closed sockets and ledgers
that do not balance (frames without exactly one outcome). Both should be 0.

Run it with ``make bench BENCH=recovery``.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.load import End, StreamLoad, Tally, http_session
from tests.helpers.media import images, model
from tests.helpers.service import Service

STREAMS = 20

_LOAD_ALONE = """
import sys, time
begun = time.perf_counter()
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
image = session.get_inputs()[0]
shape = [side if isinstance(side, int) else size for side, size in zip(image.shape, (1, 3, 640, 640))]
session.run(None, {image.name: numpy.zeros(shape, numpy.float32)})
print(time.perf_counter() - begun)
"""


async def kill_under_load(service: Service, frames: list[bytes], seconds: float) -> tuple[list[Tally], float]:
    """Kill the inference process half-way; return the tallies and the time of the kill."""
    until = End.after(seconds)
    async with http_session() as session:
        loads = [StreamLoad(f"{service.http_url}/v1/stream", frames) for _ in range(STREAMS)]
        running = [asyncio.create_task(load.run(session, until)) for load in loads]
        await asyncio.sleep(seconds / 2)
        service.inference.kill()
        killed = time.monotonic()
        return list(await asyncio.gather(*running)), killed


def main() -> None:
    """Print one line for each kill, and the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--kills", type=int, default=5, help="how many services are measured")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of the load around each kill")
    arguments = parser.parse_args()
    frames = images()
    pauses, loads = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = str(model(arguments.model, Path(folder)))
        for _ in range(arguments.kills):
            # Use a fresh service each time, because the service delays restarts after successive deaths on
            # purpose.
            with Service({"MODEL_V1_PATH": path, "STREAM_MIN_FPS": "0"}) as service:
                tallies, killed = asyncio.run(kill_under_load(service, frames, arguments.seconds))
            after = [min((t for t in tally.arrivals if t > killed + 0.05), default=0.0) for tally in tallies]
            pauses.append(min(after) - killed)
            alone = subprocess.run(
                [sys.executable, "-c", _LOAD_ALONE, path], capture_output=True, text=True, check=True
            )
            loads.append(float(alone.stdout))
            closed = sum(tally.closed not in (None, 1000) for tally in tallies)
            unbalanced = sum(not tally.balanced for tally in tallies)
            sys.stdout.write(
                f"first result after {pauses[-1]:.2f} s, every stream after {max(after) - killed:.2f} s;"
                f" load and one run alone {loads[-1]:.2f} s; {closed} of {STREAMS} sockets closed,"
                f" {unbalanced} ledgers unbalanced\n"
            )
    sys.stdout.write(
        f"median {statistics.median(pauses):.2f} s,"
        f" {statistics.median(pauses) / statistics.median(loads):.2f} times what loading takes by itself\n"
    )


if __name__ == "__main__":
    main()
