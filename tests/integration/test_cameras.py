"""Tests sources against GStreamer's RTSP server: digest authentication, transports, the first key frame."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from streamer.client.errors import BadInput, SourceFailed
from streamer.client.sources import SourceOptions, open_source
from tests.helpers.numbered_video import StepByStep, frames_of_stream, number_of
from tests.unit.test_client_sources import write_video

SYSTEM_PYTHON = "/usr/bin/python3"
BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
PASSWORD = "dummy@#:/?%1"  # noqa: S105 - a dummy
ENCODED = quote(PASSWORD, safe="")


#: Number of frames that the camera `/step` has.
STEPS = 40


@dataclass
class Cameras:
    """Holds the process of a server of RTSP cameras, and its host and port."""

    address: str
    process: subprocess.Popen[str]


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cameras]:
    """Start a server of RTSP cameras; only the first frame of their videos is a key frame."""
    found = subprocess.run([SYSTEM_PYTHON, "-c", BINDINGS], check=False, capture_output=True)
    if found.returncode:
        pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0)")
    folder = tmp_path_factory.mktemp("rtsp")
    video = write_video(folder / "v.mp4", [number / 10 for number in range(30)])
    pieces = frames_of_stream("h264", STEPS)
    (folder / "frames").write_bytes(b"".join(len(piece).to_bytes(4, "big") + piece for piece in pieces))
    script = Path(__file__).with_name("rtsp_server.py")
    server = subprocess.Popen(
        [SYSTEM_PYTHON, str(script), str(video), "admin", PASSWORD, str(folder / "frames")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    yield Cameras(f"127.0.0.1:{int(server.stdout.readline())}", server)
    server.terminate()
    server.communicate(timeout=30)


@pytest.fixture
def camera(cameras: Cameras) -> str:
    """Return host and port of the cameras."""
    return cameras.address


@pytest.mark.parametrize("path", ["tcp", "udp"])
def test_a_camera_with_digest_authentication_is_read_from_its_key_frame_on(camera: str, path: str) -> None:
    """Read a camera over TCP, and over UDP from a camera that refuses TCP."""
    source = open_source(f"rtsp://admin:{ENCODED}@{camera}/{path}", SourceOptions(reconnect=False))
    assert source.live
    frame = next(source.frames(threading.Event()))
    # Each frame is brighter than the one before, so the value shows where reading began.
    assert abs(float(np.mean(frame.pixels()[40:, 60:])) - 20) < 8


def test_a_camera_is_late_by_no_more_than_a_frame(cameras: Cameras) -> None:
    """Check that each frame arrives before the camera has sent more than one further frame."""
    pipe, steps = cameras.process.stdin, StepByStep(held_back=1)
    assert pipe is not None

    def send() -> None:
        for number in range(STEPS):
            if not steps.wait_before(number):
                return
            pipe.write("\n")
            pipe.flush()

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    source = open_source(f"rtsp://admin:{ENCODED}@{cameras.address}/step", SourceOptions(reconnect=False))
    stop, numbers = threading.Event(), []
    for frame in source.frames(stop):
        numbers.append(number_of(frame))
        steps.received(frame.number)
        if frame.number == STEPS - 3:
            stop.set()
    thread.join()
    assert not steps.failed
    assert numbers == list(range(STEPS - 2))


def test_what_the_camera_refuses_is_named_without_the_password(camera: str) -> None:
    for address, says, temporary in (
        (
            f"rtsp://admin:wrong-dummy@{camera}/tcp",
            "the user name or the password is missing or wrong",
            False,
        ),
        (f"rtsp://{camera}/tcp", "the user name or the password is missing or wrong", False),
        (f"rtsp://admin:{ENCODED}@{camera}/nothing", "404", True),
    ):
        with pytest.raises(SourceFailed, match=says) as caught:
            open_source(address)
        assert caught.value.temporary is temporary
        for secret in ("wrong-dummy", ENCODED, PASSWORD):
            assert secret not in str(caught.value)
    with pytest.raises(BadInput, match="write `@` as `%40`") as refused:
        open_source(f"rtsp://admin:{PASSWORD}@{camera}/tcp")
    assert PASSWORD not in str(refused.value)
