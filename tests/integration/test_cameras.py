"""Tests sources against GStreamer's RTSP server: digest authentication, transports, the first key frame."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from streamer.client.errors import BadInput, SourceFailed
from streamer.client.sources import SourceOptions, open_source
from tests.unit.test_client_sources import write_video

SYSTEM_PYTHON = "/usr/bin/python3"
BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
PASSWORD = "dummy@#:/?%1"  # noqa: S105 - a dummy
ENCODED = quote(PASSWORD, safe="")


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield host and port of a server of RTSP cameras; only the first frame of their video is a key frame."""
    found = subprocess.run([SYSTEM_PYTHON, "-c", BINDINGS], check=False, capture_output=True)
    if found.returncode:
        pytest.skip("GStreamer's RTSP server is not installed (gir1.2-gst-rtsp-server-1.0)")
    video = write_video(tmp_path_factory.mktemp("rtsp") / "v.mp4", [number / 10 for number in range(30)])
    script = Path(__file__).with_name("rtsp_server.py")
    server = subprocess.Popen(
        [SYSTEM_PYTHON, str(script), str(video), "admin", PASSWORD], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    yield f"127.0.0.1:{int(server.stdout.readline())}"
    server.terminate()
    server.communicate(timeout=30)


@pytest.mark.parametrize("path", ["tcp", "udp"])
def test_a_camera_with_digest_authentication_is_read_from_its_key_frame_on(camera: str, path: str) -> None:
    """Read a camera over TCP, and over UDP from a camera that refuses TCP."""
    source = open_source(f"rtsp://admin:{ENCODED}@{camera}/{path}", SourceOptions(reconnect=False))
    assert source.live
    frame = next(source.frames(threading.Event()))
    # Each frame is brighter than the one before, so the value shows where reading began.
    assert abs(float(np.mean(frame.pixels()[40:, 60:])) - 20) < 8


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
