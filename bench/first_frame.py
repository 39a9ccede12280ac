"""Measures how long ``streamer push`` waits for the first frame of each kind of source.

The time is that from opening an address to its first decoded frame, without a network between. All streams
have 10 fps and a key frame every 10 s, and are joined at a key frame; UDP has a key frame every second and is
joined anywhere. HLS has segments of 2 or 6 s, of which the newest one is complete. The figures are for the
table in docs/cameras.md. The programs `ffmpeg` and, for RTSP, GStreamer's server with its Python bindings are
needed.

Run it with ``make bench BENCH=first_frame``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from streamer.client.capture import Source
from streamer.client.errors import SourceFailed
from streamer.client.sources import SourceOptions, open_source
from tests.helpers.live_servers import LISTENING, SegmentServer, ffmpeg_server
from tests.helpers.numbered_video import write_numbered
from tests.helpers.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
RTSP_SERVER = ROOT / "tests" / "integration" / "rtsp_server.py"
STILL = ROOT / "data" / "stills" / "leaflet.jpg"
SYSTEM_PYTHON = "/usr/bin/python3"
KEY_INTERVAL_S, VIDEO_S = 10, 40
#: Longest time in which a server starts.
START_S = 30.0

#: Starts a server in a folder, and yields its address.
Serve = Callable[[Path], contextlib.AbstractContextManager[str]]


def first_frame_s(address: str) -> float:
    """Return the seconds from opening ``address`` to its first frame; wait for a server that starts."""
    deadline = time.monotonic() + START_S
    while True:
        begun = time.monotonic()
        try:
            source: Source = open_source(address, SourceOptions(reconnect=False))
            break
        except SourceFailed as error:
            if not error.temporary or begun > deadline:
                raise
        time.sleep(0.02)
    stop = threading.Event()
    for _ in source.frames(stop):
        stop.set()
        return time.monotonic() - begun
    raise SourceFailed(f"{address} ended without a frame")


@contextlib.contextmanager
def listening(kind: str, folder: Path) -> Iterator[str]:
    """Serve one of `LISTENING` with `ffmpeg`."""
    scheme, output, path = LISTENING[kind]
    address = f"{scheme}://127.0.0.1:{free_port()}"
    video = str(folder / "video.mp4")
    with ffmpeg_server("ffmpeg", "-re", "-i", video, "-c", "copy", *output, address + path):
        yield address + path.partition("?")[0]


@contextlib.contextmanager
def datagrams(folder: Path) -> Iterator[str]:
    """Send MPEG-TS by UDP for a while before it is opened."""
    address = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    video = str(folder / "often.mp4")
    with ffmpeg_server("ffmpeg", "-re", "-i", video, "-c", "copy", "-f", "mpegts", address):
        time.sleep(1.5)
        yield address


@contextlib.contextmanager
def hls(segment_s: int, folder: Path) -> Iterator[str]:
    """Serve the first three segments of a video."""
    segments = folder / f"hls-{segment_s}"
    if not segments.exists():
        segments.mkdir()
        whole = write_numbered(segments / "v.mp4", 3 * segment_s, key_interval_s=segment_s)
        command = ["ffmpeg", "-loglevel", "error", "-nostdin", "-i", str(whole), "-c", "copy", "-f", "hls"]
        command += ["-hls_time", str(segment_s), "-hls_segment_filename", str(segments / "%d.ts")]
        subprocess.run([*command, str(segments / "offline.m3u8")], check=True)
    server = SegmentServer(segments, segment_s)
    yield server.url("live.m3u8")
    server.server.shutdown()
    server.server.server_close()


@contextlib.contextmanager
def snapshot(folder: Path) -> Iterator[str]:
    """Serve one JPEG."""
    shutil.copy(STILL, folder / "still.jpg")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/still.jpg"
        server.shutdown()


@contextlib.contextmanager
def rtsp(path: str, folder: Path) -> Iterator[str]:
    """Serve the video with GStreamer's RTSP server, by TCP or by UDP."""
    video = str(folder / "video.mp4")
    command = [SYSTEM_PYTHON, str(RTSP_SERVER), video, "user", "dummy", video]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield f"rtsp://user:dummy@127.0.0.1:{int(server.stdout.readline())}/{path}"
        server.terminate()


@contextlib.contextmanager
def file(folder: Path) -> Iterator[str]:
    """Return the path of the video."""
    yield str(folder / "video.mp4")


KINDS: dict[str, Serve] = {
    "RTSP over TCP": functools.partial(rtsp, "tcp"),
    "RTSP over UDP": functools.partial(rtsp, "udp"),
    **{kind: functools.partial(listening, kind) for kind in LISTENING},
    "MPEG-TS over UDP": datagrams,
    "HLS, segments of 2 s": functools.partial(hls, 2),
    "HLS, segments of 6 s": functools.partial(hls, 6),
    "a single image over HTTP": snapshot,
    "a file": file,
}


def main() -> None:
    """Print the median and the range of the times of each kind of source."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each source is opened (5)")
    parser.add_argument("--only", default="", help="only kinds whose names contain this, such as HLS")
    arguments = parser.parse_args()
    if shutil.which("ffmpeg") is None:
        sys.exit("the program ffmpeg is missing (Debian package ffmpeg)")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_numbered(folder / "video.mp4", VIDEO_S, key_interval_s=KEY_INTERVAL_S)
        write_numbered(folder / "often.mp4", VIDEO_S, key_interval_s=1)
        for kind, serve in KINDS.items():
            if arguments.only.lower() not in kind.lower():
                continue
            times = []
            try:
                for _ in range(arguments.rounds):
                    with serve(folder) as address:
                        times.append(first_frame_s(address))
            except (OSError, ValueError, SourceFailed) as error:
                sys.stdout.write(f"{kind}: not measured ({error})\n")
                continue
            sys.stdout.write(
                f"{kind}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
