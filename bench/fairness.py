"""Measures how much groups of greedy clients slow down two well-behaved clients.

The well-behaved clients are a stream of 5 fps and a client that POSTs about 5 images a second. For each group
of greedy clients, both are measured alone and then beside the group in the same run. The printed ratio is
their p95 latency beside the group divided by their p95 alone: 1.0 means that the group costs them nothing,
and a fair scheduler keeps it small however many connections or expensive images the group sends. "lost"
counts frames and images without a result. The line "greedy" says what the group got: results, refusals by
status, and the p99 of both. Every client has its own address in 127.0.0.0/8, because the service shares the
device between addresses.

Run it with ``make bench BENCH=fairness``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np

from bench.webrtc import Refused, encode, publish
from tests.helpers.load import End, StreamLoad, Tally
from tests.helpers.media import images, model
from tests.helpers.service import ROOT, Service

POLITE_FPS = 5.0
POLITE_ADDRESSES = ("127.0.0.201", "127.0.0.202")
#: A refused greedy client tries again after this many seconds, whatever `Retry-After` says.
RETRY_S = 0.05
#: Seconds before the measurement in which the greedy clients connect.
WARM_UP_S = 2.0
GREEDY_NICENESS = 10


@dataclass(frozen=True, slots=True)
class Mix:
    """A group of greedy clients: ``addresses`` clients with ``connections`` each, which all do the same."""

    work: str
    addresses: int
    connections: int
    expensive: bool = False
    fps: float = 0.0
    mode: str = "live"


MIXES = {
    "16 POST connections, 1 client": Mix("post", 1, 16),
    "POSTs of 10 clients": Mix("post", 10, 2),
    "expensive POSTs of 10 clients": Mix("post", 10, 1, expensive=True),
    "expensive POSTs, 10 connections, 1 client": Mix("post", 1, 10, expensive=True),
    "stream of 200 fps": Mix("stream", 1, 1, fps=200.0),
    "20 streams, 1 client": Mix("stream", 1, 20, fps=30.0),
    "10 clients with a stream of 60 fps": Mix("stream", 10, 1, fps=60.0),
    "8 streams in mode all, 1 client": Mix("stream", 1, 8, mode="all"),
    "6 videos of 60 fps over WebRTC, 1 client": Mix("webrtc", 1, 6, fps=60.0),
}


@dataclass(slots=True)
class Greedy:
    """What the greedy clients of a mix observed."""

    results: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    without_retry_after: int = 0
    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)


def expensive_image() -> bytes:
    """Return a valid progressive JPEG of 13 megapixels, nearly the largest that is accepted."""
    noise = np.random.default_rng(0).integers(0, 255, (740, 1100, 3), dtype=np.uint8)
    image = cv2.resize(noise, (4400, 2960), interpolation=cv2.INTER_LINEAR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 50, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    return bytes(cv2.imencode(".jpg", image, options)[1].tobytes())


def session_from(address: str) -> aiohttp.ClientSession:
    """Return a client session that connects from ``address``."""
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=40))


async def post_greedily(url: str, address: str, frames: list[bytes], until: End, seen: Greedy) -> None:
    """POST one image after the other over one connection."""
    async with session_from(address) as session:
        for frame in itertools.cycle(frames):
            if until.passed:
                return
            begun = time.monotonic()
            try:
                async with session.post(url, data=frame, headers={"Content-Type": "image/jpeg"}) as answer:
                    await answer.read()
                    took_s = time.monotonic() - begun
                    seen.statuses[str(answer.status)] += 1
                    if answer.status == 200:
                        seen.results += 1
                        seen.served_s.append(took_s)
                        continue
                    seen.refused_s.append(took_s)
                    seen.without_retry_after += "Retry-After" not in answer.headers
            except (aiohttp.ClientError, OSError) as error:
                seen.statuses[type(error).__name__] += 1
            await asyncio.sleep(RETRY_S)


async def stream_greedily(
    url: str, address: str, frames: list[bytes], until: End, mix: Mix, seen: Greedy
) -> None:
    """Stream at the rate of the mix; retry when the stream is refused."""
    while not until.passed:
        load = StreamLoad(url, frames, mode=mix.mode, fps=mix.fps)
        try:
            async with session_from(address) as session:
                await load.run(session, until)
        except aiohttp.WSServerHandshakeError as error:
            seen.statuses[str(error.status)] += 1
            seen.without_retry_after += "Retry-After" not in (error.headers or {})
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            seen.statuses[type(error).__name__] += 1
        seen.results += load.tally.results
        seen.served_s += load.tally.latencies_s
        seen.statuses.update({f"dropped {reason}": count for reason, count in load.tally.drops.items()})
        await asyncio.sleep(RETRY_S)


async def send_videos(
    url: str, address: str, packets: list[bytes], until: End, mix: Mix, seen: Greedy
) -> None:
    """Publish the videos of one client; their results are ignored."""
    peers = []
    for number in range(mix.connections):
        offset_s = number / mix.connections / mix.fps
        try:
            peers.append((await publish(url, "VP8", packets, offset_s, fps=int(mix.fps), host=address))[0])
        except Refused as refusal:
            seen.statuses[str(refusal)] += 1
    seen.statuses["sessions"] = len(peers)
    while not until.passed:
        await asyncio.sleep(0.1)
    await asyncio.gather(*(peer.close() for peer in peers))


async def be_greedy(url: str, mix: Mix, seconds: float) -> Greedy:
    """Run all clients of a mix; report on standard output when they start."""
    if mix.work == "webrtc":
        frames = encode("VP8", (1280, 720))
    else:
        frames = [expensive_image()] if mix.expensive else images(8, (1280, 720))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    until, seen = End.after(seconds), Greedy()
    async with asyncio.TaskGroup() as group:
        for number in range(mix.addresses):
            address = f"127.0.1.{number + 1}"
            if mix.work == "webrtc":
                group.create_task(send_videos(url, address, frames, until, mix, seen))
                continue
            for _ in range(mix.connections):
                if mix.work == "post":
                    group.create_task(post_greedily(f"{url}/v1/predict", address, frames, until, seen))
                else:
                    group.create_task(stream_greedily(f"{url}/v1/stream", address, frames, until, mix, seen))
    return seen


async def be_polite(url: str, frames: list[bytes], seconds: float) -> tuple[Tally, Tally]:
    """Run one stream of 5 fps and one client that POSTs about 5 images a second, from separate addresses."""
    until = End.after(seconds)
    posted = Tally()

    async def post() -> None:
        async with session_from(POLITE_ADDRESSES[1]) as session:
            for frame in itertools.cycle(frames):
                if until.passed:
                    return
                begun = time.monotonic()
                posted.sent += 1
                headers = {"Content-Type": "image/jpeg"}
                async with session.post(f"{url}/v1/predict", data=frame, headers=headers) as answer:
                    await answer.read()
                if answer.status == 200:
                    posted.results += 1
                    posted.latencies_s.append(time.monotonic() - begun)
                else:
                    posted.errors[str(answer.status)] += 1
                await asyncio.sleep(1 / POLITE_FPS)

    async with session_from(POLITE_ADDRESSES[0]) as session:
        stream = StreamLoad(f"{url}/v1/stream", frames, fps=POLITE_FPS)
        streamed, _ = await asyncio.gather(stream.run(session, until), post())
    return streamed, posted


def beside(
    service: Service, mix: Mix, frames: list[bytes], seconds: float
) -> tuple[tuple[Tally, Tally], dict[str, Any]]:
    """Run the polite clients beside a mix, which runs in its own process.

    That process has a lower priority. On a machine with few cores, the work of the greedy clients themselves
    would otherwise delay the service and the polite clients more than their requests do.
    """
    arguments = json.dumps({name: getattr(mix, name) for name in Mix.__slots__})
    command = [sys.executable, "-m", "bench.fairness", "--greedy", arguments]
    greedy = subprocess.Popen(
        [*command, service.http_url, str(seconds + 2 * WARM_UP_S)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.setpriority(os.PRIO_PROCESS, greedy.pid, GREEDY_NICENESS)
    if greedy.stdout is None or greedy.stdout.readline() != "ready\n":
        raise SystemExit("the greedy clients did not start")
    time.sleep(WARM_UP_S)
    try:
        polite = asyncio.run(be_polite(service.http_url, frames, seconds))
    except aiohttp.WSServerHandshakeError:
        greedy.kill()
        greedy.communicate()
        raise
    out, _ = greedy.communicate(timeout=120)
    seen: dict[str, Any] = json.loads(out)
    return polite, seen


def p99_ms(times_s: list[float]) -> float:
    """Return the 99th percentile in milliseconds; NaN for an empty list."""
    return float(np.quantile(times_s, 0.99)) * 1e3 if times_s else float("nan")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each measurement")
    parser.add_argument("--only", default="", help="run the mixes whose name holds this text")
    parser.add_argument("--greedy", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    out = sys.stdout.write
    if arguments.greedy:
        text, url, seconds = arguments.greedy
        seen = asyncio.run(be_greedy(url, Mix(**json.loads(text)), float(seconds)))
        out(
            json.dumps(
                {
                    "results": seen.results,
                    "statuses": seen.statuses,
                    "without_retry_after": seen.without_retry_after,
                    "served_p99_ms": p99_ms(seen.served_s),
                    "refused_p99_ms": p99_ms(seen.refused_s),
                }
            )
        )
        return
    frames = images()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"MODEL_V1_PATH": str(model(arguments.model, Path(folder)))}
        with Service(settings) as service:
            asyncio.run(be_polite(service.http_url, frames, 2.0))
            for name, mix in MIXES.items():
                if arguments.only not in name:
                    continue
                alone = asyncio.run(be_polite(service.http_url, frames, arguments.seconds))
                out(f"{name}\n")
                try:
                    polite, greedy = beside(service, mix, frames, arguments.seconds)
                except aiohttp.WSServerHandshakeError as error:
                    out(
                        f"  the polite stream was refused with {error.status}: its share would be too small\n"
                    )
                    continue
                for who, before, after in zip(("5 fps stream", "POST client"), alone, polite, strict=True):
                    was, now = before.percentile_ms(0.95), after.percentile_ms(0.95)
                    out(
                        f"  {who:13} p95 alone {was:6.1f} ms, beside {now:6.1f} ms, ratio {now / was:5.2f};"
                        f" p50 {before.percentile_ms(0.5):5.1f} and {after.percentile_ms(0.5):5.1f} ms;"
                        f" lost {after.sent - after.results} of {after.sent}"
                        f" {dict(after.drops) or ''} {dict(after.errors) or ''}\n"
                    )
                length_s = arguments.seconds + 2 * WARM_UP_S
                out(
                    f"  greedy        {greedy['results'] / length_s:.1f} results/s,"
                    f" {greedy['statuses']}, without Retry-After {greedy['without_retry_after']},"
                    f" served p99 {greedy['served_p99_ms']:.0f} ms,"
                    f" refused p99 {greedy['refused_p99_ms']:.0f} ms\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
