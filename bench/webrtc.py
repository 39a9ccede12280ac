"""Measures what a WebRTC stream costs a worker, and how much it delays the other requests of that worker.

Publishers send a video that was encoded beforehand (640x480, 10 fps, 1 Mbit/s), so that the clients cost
little. Beside them one client sends POSTs and small GETs without pause. Each row of the table gives the
worker's processor time in milliseconds for each second of one stream, read per thread: the video decoders,
the event loop (ICE, SRTP, RTP, results), and the rest (conversion and letterbox of the frames that the model
runs on). A row with more sessions should show the same cost for each stream. The response times of GETs and
POSTs and the lag of the event loop show how long other clients wait.

Run it with ``make bench BENCH=webrtc``.
"""

from __future__ import annotations

import argparse
import asyncio
import fractions
import multiprocessing
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pylibsrtp
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription

from tests.helpers.media import images, model
from tests.helpers.service import Service

FPS = 10
ENCODERS = {"VP8": "libvpx", "H264": "libx264"}
CLOCK = fractions.Fraction(1, 90_000)


def encode(codec: str, size: tuple[int, int] = (640, 480)) -> list[bytes]:
    """Return 2 s of video at 10 fps; the first frame and the frame after one second are key frames."""
    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
    encoder.framerate, encoder.bit_rate, encoder.gop_size = FPS, 1_000_000, FPS
    encoder.time_base = fractions.Fraction(1, FPS)
    encoder.options = (
        {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
        if codec == "VP8"
        else {"tune": "zerolatency", "preset": "veryfast"}
    )
    packets = []
    for number, jpeg in enumerate(images(2 * FPS, size)):
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        frame = av.VideoFrame.from_ndarray(np.asarray(image), format="bgr24").reformat(format="yuv420p")
        frame.pts = number
        packets.append(b"".join(bytes(packet) for packet in encoder.encode(frame)))
    return packets


class Encoded(MediaStreamTrack):
    """Sends encoded frames at their frame rate."""

    kind = "video"

    def __init__(self, packets: list[bytes], offset_s: float, fps: int = FPS) -> None:
        super().__init__()
        self._fps = fps
        self._packets = packets
        self._number = 0
        self._begun = time.monotonic() + offset_s

    async def recv(self) -> av.Packet:
        """Return the next frame."""
        due = self._begun + self._number / self._fps
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        packet = av.Packet(self._packets[self._number % len(self._packets)])
        packet.pts, packet.time_base = self._number * 90_000 // self._fps, CLOCK
        self._number += 1
        return packet


class Refused(Exception):
    """The service has refused a session; the text is the HTTP status."""


async def publish(
    url: str, codec: str, packets: list[bytes], offset_s: float, *, fps: int = FPS, host: str = "127.0.0.1"
) -> tuple[RTCPeerConnection, str]:
    """Open one session from the local address ``host``; return its connection and its URL. Raises Refused."""
    import aiohttp  # noqa: PLC0415 - in the clients' process alone

    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    transceiver = peer.addTransceiver(Encoded(packets, offset_s, fps), "sendonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([c for c in codecs if c.mimeType == f"video/{codec}"])
    await peer.setLocalDescription(await peer.createOffer())
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(host, 0))) as http,
        http.post(
            f"{url}/v1/whip", data=peer.localDescription.sdp, headers={"Content-Type": "application/sdp"}
        ) as answer,
    ):
        if answer.status != 201:
            await peer.close()
            raise Refused(answer.status)
        await peer.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
        return peer, answer.headers["Location"]


def publishers(url: str, codec: str, count: int, ready: Any, stop: Any) -> None:
    """Keep ``count`` sessions open until ``stop`` is set; it runs in its own process."""

    async def run() -> None:
        packets = encode(codec)
        peers = [(await publish(url, codec, packets, n / count / FPS))[0] for n in range(count)]
        ready.set()
        while not stop.is_set():
            await asyncio.sleep(0.1)
        await asyncio.gather(*(peer.close() for peer in peers))

    asyncio.run(run())


def post_and_probe(url: str, seconds: float) -> tuple[list[float], list[float]]:
    """POST continuously; return the times of POSTs and of small GETs between them, in ms."""
    jpeg = images(1)[0]
    posts: list[float] = []
    probes: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for times, request in (
            (posts, urllib.request.Request(f"{url}/v1/predict", jpeg, {"Content-Type": "image/jpeg"})),  # noqa: S310
            *[(probes, urllib.request.Request(f"{url}/livez"))] * 4,  # noqa: S310 - loopback
        ):
            begun = time.perf_counter()
            urllib.request.urlopen(request, timeout=30).read()  # noqa: S310 - loopback
            times.append((time.perf_counter() - begun) * 1e3)
    return posts, probes


def threads_s(process: psutil.Process) -> dict[int, float]:
    """Return the processor time of each thread in seconds."""
    return {thread.id: thread.user_time + thread.system_time for thread in process.threads()}


def lag_ms(service: Service) -> float:
    """Return the histogram bound in ms below which 99 % of the event loop's delays since the start lie."""
    buckets: dict[float, float] = {}
    for line in service.get("/metrics")[1].decode().splitlines():
        if line.startswith("object_detection_event_loop_lag_seconds_bucket"):
            bound, _, count = line.partition('le="')[2].partition('"} ')
            buckets[float(bound)] = float(count)
    wanted = 0.99 * buckets[float("inf")]
    return 1e3 * min(bound for bound, count in buckets.items() if count >= wanted)


def srtp_us() -> float:
    """Return the time to decrypt one packet of 1,200 bytes, in microseconds."""
    key = bytes(30)
    sender = pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND))
    receiver = pylibsrtp.Session(pylibsrtp.Policy(key=key, ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND))
    packets = [
        sender.protect(b"\x80\x60" + n.to_bytes(2, "big") + bytes(8) + bytes(1200)) for n in range(2000)
    ]
    begun = time.thread_time()
    for packet in packets:
        receiver.unprotect(packet)
    return (time.thread_time() - begun) / len(packets) * 1e6


def measure(path: Path, codec: str, count: int, seconds: float) -> str:
    """Measure one row of the table."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Event(), context.Event()
    with Service({"MODEL_V1_PATH": str(path), "STREAM_MIN_FPS": "0"}) as service:
        (worker,) = service.workers
        clients = context.Process(target=publishers, args=(service.http_url, codec, count, ready, stop))
        clients.start()
        assert ready.wait(120)
        time.sleep(3)
        names = ("received", "inferred", "dropped")
        counts = {
            name: service.metric(f"object_detection_frames_{name}_total", transport="whip") for name in names
        }
        before, begun = threads_s(worker), time.monotonic()
        posts, probes = post_and_probe(service.http_url, seconds)
        elapsed, after = time.monotonic() - begun, threads_s(worker)
        for name in names:
            counts[name] = (
                service.metric(f"object_detection_frames_{name}_total", transport="whip") - counts[name]
            )
        lag = lag_ms(service)
        stop.set()
        clients.join(30)
        time.sleep(2)
        left = set(threads_s(worker))
        used = {tid: after[tid] - before.get(tid, 0.0) for tid in after}
    loop_s = used.pop(worker.pid)
    decode_s = sum(value for tid, value in used.items() if tid not in left)
    rest_s = sum(value for tid, value in used.items() if tid in left)
    per = 1000 / (count * elapsed)
    return (
        f"| {codec} | {count} | {counts['received'] / elapsed:.0f} | {counts['inferred'] / elapsed:.0f} "
        f"| {decode_s * per:.1f} | {loop_s * per:.1f} | {rest_s * per:.1f} "
        f"| {statistics.median(probes):.1f} / {np.percentile(probes, 99):.0f} "
        f"| {lag:.1f} | {statistics.median(posts):.0f} |\n"
    )


def main() -> None:
    """Print a table: one row for each codec and number of sessions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument(
        "--sessions", type=int, nargs="+", default=[1, 10, 20], help="numbers of sessions to measure"
    )
    parser.add_argument(
        "--codecs", nargs="+", default=["VP8", "H264"], choices=list(ENCODERS), help="codecs to measure"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="length of each measurement")
    arguments = parser.parse_args()
    sys.stdout.write(f"SRTP: {srtp_us():.1f} µs a packet of 1,200 bytes\n\n")
    sys.stdout.write(
        "| codec | sessions | frames/s | examined/s | decoder, ms a stream-second | event loop | rest "
        "| GET p50 / p99, ms | loop lag p99 under, ms "
        "| POST p50, ms |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = model(arguments.model, Path(folder))
        for codec in arguments.codecs:
            for count in arguments.sessions:
                sys.stdout.write(measure(path, codec, count, arguments.seconds))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
