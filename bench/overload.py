"""Measures what one client that sends far more than the model can process costs two well-behaved clients.

The well-behaved clients are a stream of 5 fps and a client that POSTs about 5 images a second. Each is
measured alone and then beside the flood. The printed ratio is the latency beside the flood divided by the
latency alone; 1.0 means that the flood does not delay the client at all. "lost" counts frames and images
without a result and should be 0. For the flood it prints results, drops by reason and the age of results,
which stays small if the service drops old frames instead of queueing them. Memory before and after should be
equal. The last lines show what becomes of POSTs that arrive at twice the rate that the service can process.

Run it with ``make bench BENCH=overload``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

import psutil

from bench.overload_posts import report
from tests.helpers.load import End, StreamLoad, Tally, http_session, post_in_turn
from tests.helpers.media import images, model
from tests.helpers.service import Service

POLITE_FPS = 5.0


async def polite(service: Service, frames: list[bytes], until: End) -> tuple[Tally, Tally]:
    """Run one stream of 5 fps and one POST client of about 5 images a second."""
    async with http_session() as session:
        stream = StreamLoad(f"{service.http_url}/v1/stream", frames, fps=POLITE_FPS)
        posts = post_in_turn(session, f"{service.http_url}/v1/predict", frames, until, pause_s=1 / POLITE_FPS)
        streamed, posted = await asyncio.gather(stream.run(session, until), posts)
        return streamed, posted


async def flood(service: Service, frames: list[bytes], until: End, fps: float) -> Tally:
    """Send ``fps`` frames a second, regardless of the window."""
    async with http_session() as session:
        return await StreamLoad(f"{service.http_url}/v1/stream", frames, fps=fps).run(session, until)


async def together(
    service: Service, frames: list[bytes], seconds: float, fps: float
) -> tuple[Tally, Tally, Tally]:
    """Run the flood and the polite clients at once."""
    until = End.after(seconds)
    flooded, (streamed, posted) = await asyncio.gather(
        flood(service, frames, until, fps), polite(service, frames, until)
    )
    return flooded, streamed, posted


def memory_mb(service: Service) -> float:
    """Return the proportional set size of all processes of the service, in MB."""
    total = 0
    for process in [service.supervisor, *service.supervisor.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end meanwhile
            total += process.memory_full_info().pss
    return total / 1e6


def main() -> None:
    """Print one line for each measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--fps", type=float, default=200.0, help="frames per second of the flood")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--lanes", default="0", help="INFERENCE_LANES of the service")
    arguments = parser.parse_args()
    out = sys.stdout.write
    frames = images()
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "MODEL_V1_PATH": str(model(arguments.model, Path(folder))),
            "STREAM_MIN_FPS": "0",
            "INFERENCE_LANES": arguments.lanes,
        }
        with Service(settings) as service:
            asyncio.run(polite(service, frames, End.after(3)))
            before = asyncio.run(polite(service, frames, End.after(arguments.seconds / 2)))
            asyncio.run(together(service, frames, 3, arguments.fps))
            memory_before = memory_mb(service)
            flooded, *after = asyncio.run(together(service, frames, arguments.seconds, arguments.fps))
            memory_after = memory_mb(service)
            posts = report(service, frames, arguments.seconds)
    for name, alone, loaded in zip(("5 fps stream", "POST client"), before, after, strict=True):
        for share in (0.5, 0.95):
            was, is_now = alone.percentile_ms(share), loaded.percentile_ms(share)
            out(
                f"{name:13} p{share * 100:.0f}  alone {was:6.1f} ms, beside the flood {is_now:6.1f} ms,"
                f" ratio {is_now / was:.2f}\n"
            )
        out(f"{name:13} lost {loaded.sent - loaded.results} of {loaded.sent}\n")
    out(
        f"flood         {flooded.sent} sent, {flooded.results} results"
        f" ({flooded.results / arguments.seconds:.0f} fps), dropped {dict(flooded.drops)},"
        f" errors {dict(flooded.errors)}, balanced {flooded.balanced}, closed {flooded.closed}\n"
        f"flood         age of results p50 {flooded.percentile_ms(0.5):.0f} ms,"
        f" p99 {flooded.percentile_ms(0.99):.0f} ms, oldest {flooded.percentile_ms(1):.0f} ms\n"
        f"{posts}"
        f"memory        {memory_before:.0f} MB, after {arguments.seconds:.0f} s {memory_after:.0f} MB\n"
    )


if __name__ == "__main__":
    main()
