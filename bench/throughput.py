"""Measures how many frames per second the whole service processes, relative to a bare loop on the same cores.

Each round first runs the bare loop of `bench.floor` (decode, letterbox, ONNX Runtime, suppression; one
process per core, no network). It then saturates a fresh service in three ways: streams that respect their
window, streams that flood it, and POSTs. Each line gives results per second and their ratio to the bare loop
of the same round. 1.0 means that network, queues and process boundaries cost nothing; above 1.0 the service
has less to compute, because it removes work from the graph of the model. Compare the ratios, not the frames
per second: these depend on the machine. The load client runs on the same cores, so the ratio includes its
cost.

Run it with ``make bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from bench import bare_posts, floor
from tests.helpers.load import End, StreamLoad, Tally, http_session, total
from tests.helpers.media import images, model
from tests.helpers.service import Service

#: These numbers of streams and connections keep the device and the decoders busy; more would only wait.
STREAMS = 8
CONNECTIONS = 16


async def over_websocket(
    url: str, frames: list[bytes], seconds: float, *, mode: str, fps: float, streams: int = STREAMS
) -> Tally:
    """Saturate with streams: within their window (``fps`` 0), or flooding with ``fps`` each."""
    until = End.after(seconds)
    async with http_session() as session:
        loads = [StreamLoad(f"{url}/v1/stream", frames, mode=mode, fps=fps) for _ in range(streams)]
        return total(list(await asyncio.gather(*(load.run(session, until) for load in loads))))


async def over_post(service: Service, frames: list[bytes], seconds: float) -> Tally:
    """Saturate with POSTs; each connection sends the next request as soon as it has the answer."""
    url = f"{service.http_url}/v1/predict"
    return await asyncio.to_thread(bare_posts.post, url, frames, seconds, CONNECTIONS)


def rate(tally: Tally, seconds: float) -> float:
    """Return results per second, excluding the first and the last half second."""
    first = min(tally.arrivals, default=0.0)
    inside = [t for t in tally.arrivals if first + 0.5 <= t <= first + seconds - 0.5]
    return len(inside) / (seconds - 1.0)


def main() -> None:
    """Print a table of rounds and the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m bench.throughput --model null --size 640x480 --rounds 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--size", default="640x480", help="frame size")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    parser.add_argument("--workers", default="1", help="WORKERS of the service")
    arguments = parser.parse_args()
    width, _, height = arguments.size.partition("x")
    frames = images(size=(int(width), int(height)))
    seconds = arguments.seconds
    out = sys.stdout.write
    with tempfile.TemporaryDirectory() as folder:
        path = model(arguments.model, Path(folder))
        out(f"{path.name}, {arguments.size} JPEG, mean {sum(map(len, frames)) / len(frames) / 1e3:.0f} KB\n")
        rows: dict[str, list[float]] = {}
        floors: list[float] = []
        for number in range(arguments.rounds):
            floors.append(floor.measure(path, frames, seconds))
            settings = {"MODEL_V1_PATH": str(path), "WORKERS": arguments.workers}
            with Service(settings | {"STREAM_MIN_FPS": "0"}) as service:
                for name, work in {
                    "websocket, window": over_websocket(service.http_url, frames, seconds, mode="all", fps=0),
                    "websocket, flood": over_websocket(
                        service.http_url, frames, seconds, mode="live", fps=100
                    ),
                    "POST": over_post(service, frames, seconds),
                }.items():
                    tally = asyncio.run(work)
                    rows.setdefault(name, []).append(rate(tally, seconds))
                    balance = "" if tally.balanced else "  LEDGER DOES NOT BALANCE"
                    out(
                        f"round {number + 1}  {name:18} {rows[name][-1]:7.1f} fps"
                        f"  {rows[name][-1] / floors[-1]:.3f} of {floors[-1]:.1f}"
                        f"  p50 {tally.percentile_ms(0.5):.0f} p99 {tally.percentile_ms(0.99):.0f} ms"
                        f"{balance}\n"
                    )
        for name, rates in rows.items():
            ratios = [value / base for value, base in zip(rates, floors, strict=True)]
            out(f"median   {name:18} {statistics.median(ratios):.3f} of the floor\n")


if __name__ == "__main__":
    main()
