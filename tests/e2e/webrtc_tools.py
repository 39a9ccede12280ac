"""Runs WebRTC programs of other projects for tests, and skips a test where one cannot be installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.helpers.ports import free_port
from tests.helpers.waiting import wait_for

HERE = Path(__file__).resolve().parent
#: Time limit for npm in seconds. It takes a few seconds with a registry, and would not end without one.
_INSTALL_S = 120.0


def program(name: str, package: str) -> str:
    """Return the path of a program, or skip the test and name the Debian package that contains it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name} (Debian package {package}), which is not installed")
    return path


def npm_package(package: str, cache: Path) -> Path:
    """Install ``name@version`` in the folder ``cache`` and return the package's own folder."""
    npm = program("npm", "npm")
    folder = cache / "node_modules" / package.rsplit("@", 1)[0]
    if not folder.is_dir():
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", package]
        try:
            subprocess.run(command, cwd=cache, check=True, capture_output=True, timeout=_INSTALL_S)
        except (subprocess.SubprocessError, OSError) as error:
            pytest.skip(f"{package} cannot be installed from npm here: {error}")
    return folder


def werift_folder(cache: Path) -> Path:
    """Return a folder with werift installed and our publisher in it."""
    npm_package("werift@0.24", cache)
    shutil.copy(HERE / "werift_publisher.mjs", cache)
    return cache


def free_udp_port() -> int:
    """Return a UDP port of the loopback interface that is not in use."""
    return free_port(socket.SOCK_DGRAM)


_ENCODERS = {
    "VP8": ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8"],
    "H264": ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-profile:v", "baseline"],
}


@contextmanager
def rtp_of(video: Path, codec: str, port: int) -> Iterator[None]:
    """Send a Motion JPEG file as RTP to a port in an endless loop: 640x360, 10 fps, 1 key frame per s."""
    ffmpeg = program("ffmpeg", "ffmpeg")
    command = [ffmpeg, "-loglevel", "error", "-nostdin", "-re", "-stream_loop", "-1"]
    command += ["-f", "mjpeg", "-framerate", "15", "-i", str(video)]
    command += ["-vf", "fps=10,scale=640:360,format=yuv420p", "-g", "10", "-b:v", "1M"]
    command += [*_ENCODERS[codec], "-f", "rtp", "-payload_type", "96"]
    command.append(f"rtp://127.0.0.1:{port}?pkt_size=1200")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class Publisher:
    """Runs a publishing program that prints JSON lines and ends its session when it reads "stop"."""

    def __init__(self, command: list[str], cwd: Path | None = None) -> None:
        self._process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self) -> dict[str, Any]:
        """Return the next line that the publisher prints, parsed as JSON."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.kill()
            raise AssertionError(f"the publisher has ended: {self._process.communicate()[1][-2000:]}")
        parsed: dict[str, Any] = json.loads(line)
        return parsed

    def stop(self) -> dict[str, Any]:
        """End the session and return the line that the publisher then prints."""
        assert self._process.stdin is not None
        self._process.stdin.write("stop\n")
        self._process.stdin.flush()
        return self.read()


def read_results(location: str, count: int, timeout_s: float = 60.0) -> list[dict[str, Any]]:
    """Return the next ``count`` results that a session sends as server-sent events."""
    results: list[dict[str, Any]] = []
    deadline = time.monotonic() + timeout_s
    with urllib.request.urlopen(f"{location}/results", timeout=timeout_s) as events:  # noqa: S310 - loopback
        for line in events:
            assert time.monotonic() < deadline, f"{len(results)} results in {timeout_s} s"
            if line.startswith(b"data: ") and (message := json.loads(line[6:]))["type"] == "result":
                results.append(message)
                if len(results) == count:
                    break
    return results


def answers_stun(port: int) -> bool:
    """Return whether a server answers a binding request (RFC 8489, section 6) within 0.2 s."""
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        client.connect(("127.0.0.1", port))
        try:
            client.send(request)
            return client.recv(1500)[:2] == b"\x01\x01"
        except OSError:
            return False


@contextmanager
def turn_server(folder: Path, secret: str) -> Iterator[int]:
    """Run coturn on the loopback interface with credentials derived from ``secret``; yield its port."""
    turnserver = program("turnserver", "coturn")
    port = free_udp_port()
    command = [turnserver, "-n", "-L", "127.0.0.1", "-p", str(port), "-E", "127.0.0.1"]
    command += ["--allow-loopback-peers", "-r", "test.local", "--use-auth-secret"]
    command += ["--static-auth-secret", secret, "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout"]
    command += ["--simple-log", "--min-port", "49160", "--max-port", "49260"]
    command += ["--pidfile", str(folder / "turn.pid"), "--userdb", str(folder / "turn.db")]
    with (folder / "turn.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            wait_for(lambda: process.poll() is not None or answers_stun(port), "an answer of coturn")
            assert process.poll() is None, (folder / "turn.log").read_text()[-1000:]
            yield port
        finally:
            process.kill()
            process.wait()
