"""Compares two engines on a CPU with one engine that has as many inference threads.

Both serve the same streams, which ask for more than the cores can run, in turn and in one run, because the
speed of a machine changes from minute to minute. Each line gives the frames per second of both, and the last
one the median of their ratios; 1.0 would mean that two engines cost nothing.

Run it with ``make bench BENCH=engines``.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.load import End, StreamLoad, http_session
from tests.helpers.media import images, model
from tests.helpers.service import Service

STREAMS = 16
#: Results before this time do not count: streams still open, and caches fill.
_WARM_UP_S = 2.0


async def frames_per_s(service: Service, frames: list[bytes], seconds: float) -> float:
    """Return how many frames per second get a result under load."""
    begun = time.monotonic() + _WARM_UP_S
    until = End.after(_WARM_UP_S + seconds)
    async with http_session() as session:
        loads = [StreamLoad(f"{service.http_url}/v1/stream", frames) for _ in range(STREAMS)]
        tallies = await asyncio.gather(*(load.run(session, until) for load in loads))
    counted = [at for tally in tallies for at in tally.arrivals if begun <= at < begun + seconds]
    return len(counted) / seconds


def main() -> None:
    """Print one line for each round, and the median of the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--rounds", type=int, default=5, help="how often both are measured")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement")
    arguments = parser.parse_args()
    frames = images()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "MODEL_V1_PATH": str(model(arguments.model, Path(folder))),
            "STREAM_MIN_FPS": "0",
            "SAMPLING": "False",
        }
        for _ in range(arguments.rounds):
            found = {}
            for device, threads in (("cpu", "2"), ("cpu,cpu", "1")):
                with Service(common | {"DEVICE": device, "INFERENCE_LANES": threads}) as service:
                    found[device] = asyncio.run(frames_per_s(service, frames, arguments.seconds))
            ratios.append(found["cpu,cpu"] / found["cpu"])
            sys.stdout.write(
                f"one engine {found['cpu']:.1f}, two engines {found['cpu,cpu']:.1f} frames/s,"
                f" ratio {ratios[-1]:.3f}\n"
            )
    sys.stdout.write(f"median ratio {statistics.median(ratios):.3f}\n")


if __name__ == "__main__":
    main()
