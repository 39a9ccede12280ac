"""Tests the first frame of sources that the `ffmpeg` program or a small server serves.

The frames of the test video have a number each, as their brightness, and only the first one is a key frame. A
reader that loses it gets no frame before the video ends.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest

from streamer.client import video
from streamer.client.capture import Captured, Source
from streamer.client.errors import SourceFailed
from streamer.client.sources import SourceOptions, open_source
from streamer.client.video import LiveVideo, VideoFile
from tests.helpers.live_servers import LISTENING, SegmentServer, ffmpeg_server
from tests.helpers.numbered_video import (
    FPS,
    NUMBERS,
    StepByStep,
    frames_of_stream,
    number_of,
    write_numbered,
)
from tests.helpers.ports import free_port

#: Seconds between two key frames of the video.
KEY_INTERVAL_S = 40
#: Time limit for what happens at once on an idle machine.
SOON_S = 60.0


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs the program {name} (Debian package {name})")
    return found


def ffmpeg(*arguments: str) -> contextlib.AbstractContextManager[None]:
    """Run the `ffmpeg` program until the block ends."""
    return ffmpeg_server(program("ffmpeg"), *arguments)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbered") / "video.mp4"
    return write_numbered(path, KEY_INTERVAL_S, key_interval_s=KEY_INTERVAL_S)


@pytest.fixture(autouse=True)
def _time_for_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPEN_TIMEOUT_S", "READ_TIMEOUT_S", "STALE_S"):
        monkeypatch.setattr(video, name, SOON_S)


def open_soon(address: str) -> Source:
    """Open a source as soon as its server listens."""
    deadline = time.monotonic() + SOON_S
    while True:
        try:
            return open_source(address, SourceOptions(reconnect=False))
        except SourceFailed as error:
            if not error.temporary or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def first(source: Source) -> Captured:
    """Return the first frame, and close the source."""
    stop, found = threading.Event(), []
    for frame in source.frames(stop):
        stop.set()
        found.append(frame)
    return found[0]


@pytest.mark.parametrize("kind", LISTENING)
def test_a_live_stream_begins_with_the_key_frame_at_which_it_was_joined(kind: str, numbered: Path) -> None:
    """Check that the first key frame is kept, and shown long before there would be another one."""
    scheme, output, path = LISTENING[kind]
    address = f"{scheme}://127.0.0.1:{free_port()}"
    with ffmpeg("-re", "-i", str(numbered), "-c", "copy", *output, address + path):
        source = open_soon(address + path.partition("?")[0])
        assert isinstance(source, LiveVideo)
        begun = time.monotonic()
        assert number_of(first(source)) == 0
        assert time.monotonic() - begun < KEY_INTERVAL_S


def test_a_file_begins_with_its_first_frame(numbered: Path) -> None:
    source = open_source(str(numbered))
    assert isinstance(source, VideoFile)
    assert number_of(first(source)) == 0


def test_a_live_transport_stream_is_late_by_no_more_than_two_frames() -> None:
    """Check that a frame arrives with the second one after it: in MPEG-TS it ends where the next begins."""
    pieces, steps = frames_of_stream("mpegts", 50), StepByStep(held_back=2)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                for number, piece in enumerate(pieces):
                    if not steps.wait_before(number):
                        return
                    connection.sendall(piece)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        source = open_source(f"tcp://127.0.0.1:{server.getsockname()[1]}", SourceOptions(reconnect=False))
        numbers = []
        with contextlib.suppress(SourceFailed):  # the stream ends
            for frame in source.frames(threading.Event()):
                numbers.append(number_of(frame))
                steps.received(frame.number)
        thread.join()
    assert not steps.failed
    assert numbers == list(range(len(pieces)))


@pytest.fixture(params=[2, 6])
def segments(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[SegmentServer, int]]:
    """Yield a server of segments, and how many seconds each has."""
    segment_s: int = request.param
    whole = write_numbered(tmp_path / "v.mp4", 5 * segment_s, key_interval_s=segment_s)
    options = {"hls_time": str(segment_s), "hls_segment_filename": str(tmp_path / "%d.ts")}
    # PyAV has FFmpeg's libraries, so this test needs no program.
    with av.open(str(whole)) as source, av.open(str(tmp_path / "o.m3u8"), "w", "hls", options) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    server = SegmentServer(tmp_path, segment_s)
    yield server, segment_s
    server.server.shutdown()
    server.server.server_close()


def test_hls_begins_with_the_newest_segment_without_waiting_for_another(
    segments: tuple[SegmentServer, int],
) -> None:
    server, segment_s = segments
    source = open_source(server.url("live.m3u8"), SourceOptions(reconnect=False))
    assert isinstance(source, LiveVideo)
    assert number_of(first(source)) == 2 * segment_s * FPS % NUMBERS
    assert server.requested == ["/2.ts"]


def test_hls_is_played_at_its_own_pace_and_in_one_size_only(segments: tuple[SegmentServer, int]) -> None:
    """Check that the frames of a segment do not arrive all at once, as its bytes do."""
    server, segment_s = segments
    source = open_source(server.url("master.m3u8"), SourceOptions(reconnect=False))
    opened, stop = len(server.requested), threading.Event()
    arrivals: list[float] = []
    numbers: list[int] = []
    for frame in source.frames(stop):
        arrivals.append(time.monotonic())
        numbers.append(number_of(frame))
        assert not frame.skip
        if len(arrivals) == 2:
            time.sleep(3.5 / FPS)  # a reader that falls behind gets all frames, too
        if len(arrivals) == segment_s * FPS // 2:
            server.listed = (1, 4)  # the next segment appears while this one is played
        if len(arrivals) == segment_s * FPS + 5:
            stop.set()
    assert numbers == [(2 * segment_s * FPS + n) % NUMBERS for n in range(len(numbers))]
    # A frame that a stalled machine delays comes closer to those after it, so only the median is checked.
    halves_s = [arrivals[n + segment_s * FPS // 2] - arrivals[n] for n in range(segment_s * FPS // 2)]
    assert statistics.median(halves_s) > segment_s / 4
    assert {path.partition("/3.ts")[0] for path in server.requested[opened:]} == {"/size1"}


def test_a_real_hls_server_is_joined_at_its_newest_segment(tmp_path: Path, numbered: Path) -> None:
    whole = write_numbered(tmp_path / "v.mp4", 30, key_interval_s=2)
    output = ["-f", "hls", "-hls_time", "2", "-hls_flags", "temp_file", str(tmp_path / "live.m3u8")]
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    live = ffmpeg("-re", "-i", str(whole), "-c", "copy", *output)
    with live, ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        playlist = tmp_path / "live.m3u8"
        deadline = time.monotonic() + SOON_S
        while (before := newest_of(playlist)) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        source = open_source(f"http://127.0.0.1:{web.server_port}/live.m3u8", SourceOptions(reconnect=False))
        number = number_of(first(source))
        after = newest_of(playlist)
        web.shutdown()
    assert number in [segment * 2 * FPS % NUMBERS for segment in range(before, after + 1)]


def newest_of(playlist: Path) -> int:
    """Return the number of the newest of the segments that the playlist lists; -1 if there is none."""
    found = re.findall(r"^live(\d+)\.ts$", playlist.read_text(), re.MULTILINE) if playlist.exists() else []
    return int(found[-1]) if found else -1
