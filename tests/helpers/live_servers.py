"""Servers of live video for tests and the benchmark of first frames: the `ffmpeg` program, and HLS."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: Scheme, output options and path of the servers that `ffmpeg` can be, by kind of stream. The part of the
#: path after a question mark is for the server alone.
LISTENING = {
    "MPEG-TS over TCP": ("tcp", ["-f", "mpegts"], "?listen=1"),
    "raw H.264 over TCP": ("tcp", ["-flush_packets", "1", "-f", "h264"], "?listen=1"),
    "raw MJPEG over TCP": ("tcp", ["-c:v", "mjpeg", "-q:v", "1", "-f", "mjpeg"], "?listen=1"),
    "RTMP": ("rtmp", ["-f", "flv", "-listen", "1"], "/live/camera"),
    "FLV over HTTP": ("http", ["-f", "flv", "-listen", "1"], "/live"),
    "MPEG-TS over HTTP": ("http", ["-f", "mpegts", "-listen", "1"], "/live"),
    "MJPEG over HTTP": ("http", ["-c:v", "mjpeg", "-f", "mpjpeg", "-listen", "1"], "/live"),
    "fragments of MP4 over HTTP": (
        "http",
        [
            "-f",
            "mp4",
            "-movflags",
            "empty_moov+default_base_moof",
            "-frag_duration",
            "200000",
            "-listen",
            "1",
        ],
        "/live",
    ),
}


@contextlib.contextmanager
def ffmpeg_server(program: str, *arguments: str) -> Iterator[None]:
    """Run the `ffmpeg` program until the block ends."""
    command = [program, "-loglevel", "error", "-nostdin", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class SegmentServer:
    """Serves segments of a video as a live HLS stream; the test decides which of them the playlist lists."""

    def __init__(self, folder: Path, segment_s: int) -> None:
        self._segment_s = segment_s
        #: Numbers of the first segment that is listed, and of the first one that is not.
        self.listed = (0, 3)
        #: Paths of the segments that were requested, in order.
        self.requested: list[str] = []
        outer = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                if name == "master.m3u8":
                    self._answer(outer.master())
                elif name.endswith(".m3u8"):
                    self._answer(outer.playlist())
                else:
                    outer.requested.append(self.path)
                    self.path = f"/{name}"
                    super().do_GET()

            def _answer(self, text: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/vnd.apple.mpegurl")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def playlist(self) -> str:
        begin, end = self.listed
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{self._segment_s}"]
        lines.append(f"#EXT-X-MEDIA-SEQUENCE:{begin}")
        for number in range(begin, end):
            lines += [f"#EXTINF:{self._segment_s:.3f},", f"{number}.ts"]
        return "\n".join(lines) + "\n"

    def master(self) -> str:
        sizes = "".join(
            f"#EXT-X-STREAM-INF:BANDWIDTH={n}000000,RESOLUTION=160x96\nsize{n}/live.m3u8\n" for n in (1, 2, 3)
        )
        return f"#EXTM3U\n{sizes}"
