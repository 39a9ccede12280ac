"""Tests sources: timing and rotation of video files, natural order of folders, cameras, URLs that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from streamer.client.camera import Camera
from streamer.client.capture import (
    BACKLOG_S,
    RESYNC_AFTER_S,
    Captured,
    MediaTimes,
    paced,
    thinned,
    without_backlog,
)
from streamer.client.errors import BadInput, SourceFailed
from streamer.client.sources import ImageFiles, SourceOptions, is_image_source, natural_key, open_source
from streamer.client.video import LiveVideo, VideoFile
from tests.unit.images import encode, scene

PIXELS = np.zeros((4, 4, 3), np.uint8)


def write_video(path: Path, times_s: list[float], *, rotation: int = 0, start_s: float = 0.0) -> Path:
    """Write a small H.264 file with a frame at each of these times; frames get brighter, up to 250."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, time_s in enumerate(times_s):
            image = np.full((64, 96, 3), min(250, 20 + 5 * index), np.uint8)
            image[:32, :48] = (0, 0, 250)  # red in the upper left
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = round((start_s + time_s) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(source: Any, most: int = 1000) -> list[Captured]:
    stop, found = threading.Event(), []
    for frame in source.frames(stop):
        found.append(frame)
        if len(found) >= most:
            stop.set()
    return found


def test_a_file_keeps_its_own_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.2, 0.21, 1.0]
    source = open_source(str(write_video(tmp_path / "v.mp4", times)))
    assert (source.total, source.live) == (5, False)
    frames = read(source)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [round(frame.time_s, 3) for frame in frames] == times
    assert frames[0].pixels().shape == (64, 96, 3)
    assert abs(int(frames[4].pixels()[50, 80, 0]) - 40) < 6


def test_times_begin_at_zero_wherever_the_container_begins(tmp_path: Path) -> None:
    frames = read(VideoFile(str(write_video(tmp_path / "v.mkv", [0.0, 0.5], start_s=7.0))))
    assert [round(frame.time_s, 3) for frame in frames] == [0.0, 0.5]


@pytest.mark.parametrize(("rotation", "corner"), [(90, "left"), (180, "right"), (270, "right")])
def test_rotation_is_applied(tmp_path: Path, rotation: int, corner: str) -> None:
    """The display matrix turns the frame; the position of the red corner shows how far."""
    path = write_video(tmp_path / "v.mp4", [0.0, 0.1], rotation=rotation)
    image = read(VideoFile(str(path)))[0].pixels()
    with av.open(str(path)) as container:
        turns = next(container.decode(video=0)).rotation
    assert image.shape[:2] == ((64, 96) if rotation == 180 else (96, 64))
    expected = np.rot90(np.indices((64, 96))[0] < 32, round(turns / 90))
    assert expected.shape == image.shape[:2]
    quarter = image.shape[0] // 4, image.shape[1] // 4
    places = {"top left": (quarter[0], quarter[1]), "bottom left": (-quarter[0], quarter[1])}
    places |= {"top right": (quarter[0], -quarter[1]), "bottom right": (-quarter[0], -quarter[1])}
    red = [name for name, (y, x) in places.items() if image[y, x, 2] > 180 and image[y, x, 0] < 90]
    assert len(red) == 1
    # FFmpeg's rotation is counter-clockwise, in degrees.
    turned = {
        90: "bottom left",
        180: "bottom right",
        270: "top right",
        -90: "top right",
        -180: "bottom right",
    }
    assert red == [turned[round(turns)]]
    assert corner in red[0]


def test_a_loop_goes_on_counting_time_and_frames(tmp_path: Path) -> None:
    source = VideoFile(str(write_video(tmp_path / "v.mp4", [0.0, 0.1, 0.2])), loop=True)
    assert source.total is None
    frames = read(source, most=7)
    assert [frame.number for frame in frames] == list(range(7))
    times = [frame.time_s for frame in frames]
    assert times == sorted(set(times))


def test_a_file_cut_short_gives_what_it_holds(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "v.mkv", [index / 10 for index in range(50)])
    data = whole.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert 0 < len(read(VideoFile(str(tmp_path / "cut.mkv")))) < 50


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceFailed, match=r"x\.mp4: cannot be opened"):
        open_source(str(tmp_path / "x.mp4"))


def test_a_source_that_does_not_exist_is_a_usage_error_that_says_what_is_allowed() -> None:
    with pytest.raises(BadInput, match=r"nosuch.*a camera .*, a video file"):
        open_source("nosuch.mp4")
    with pytest.raises(BadInput, match="rtsp://"):
        open_source("gopher://host/x")


def test_sample_is_the_clip_that_comes_with_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (frame,) = read(open_source("sample"), most=1)
    assert frame.pixels().shape == (360, 640, 3)
    (tmp_path / "sample").mkdir()
    with pytest.raises(SourceFailed, match="sample"):  # the user's folder of that name wins, even if empty
        open_source("sample")


def test_an_address_that_fails_is_shown_without_its_password() -> None:
    secret = "hunter22-dummy"  # noqa: S105 - a dummy
    for url in (f"rtsp://admin:{secret}@127.0.0.1:9/live", f"http://127.0.0.1:9/x?token={secret}"):
        with pytest.raises(SourceFailed) as caught:
            open_source(url)
        assert secret not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)


def test_folders_are_read_in_natural_order_and_files_go_out_as_they_are(tmp_path: Path) -> None:
    for name in ("10.jpg", "2.JPG", "1.png", "note.txt", ".hidden.jpg"):
        (tmp_path / name).write_bytes(encode(scene()) if name != "note.txt" else b"")
    source = open_source(str(tmp_path), SourceOptions(fps=2))
    frames = read(source)
    assert [frame.name for frame in frames] == ["1.png", "2.JPG", "10.jpg"]
    assert [frame.time_s for frame in frames] == [0, 0.5, 1.0]
    assert frames[0].image == (tmp_path / "1.png").read_bytes()
    assert frames[0].pixels().shape == (96, 160, 3)
    assert source.total == 3
    assert len(read(ImageFiles(tmp_path, loop=True), most=5)) == 5
    assert is_image_source(str(tmp_path))
    assert is_image_source("x.jpeg")
    assert not is_image_source("http://host/x.jpg")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="contains no image"):
        open_source(str(tmp_path))


def test_natural_order() -> None:
    names = ["b2", "a10", "a2", "A1", "a", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "A1", "a2", "a10", "b2"]


class FakeClock:
    """A clock that stands still until a test or a `FakeStop` moves it."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class FakeStop(threading.Event):
    """An event whose waits move the fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.now += timeout or 0.0
        return self.is_set()


def captures(times_s: list[float], clock: FakeClock | None = None, work_s: float = 0.0) -> Iterator[Captured]:
    for number, time_s in enumerate(times_s):
        if clock is not None:
            clock.now += work_s
        yield Captured(number, time_s, 0.1, PIXELS)


def test_pacing_waits_for_each_frames_time() -> None:
    clock = FakeClock()
    seen = [
        (frame.time_s, round(clock.now - 50, 6), frame.skip)
        for frame in paced(captures([0.0, 0.1, 0.5]), FakeStop(clock), clock)
    ]
    assert seen == [(0.0, 0.0, ""), (0.1, 0.1, ""), (0.5, 0.5, "")]


def test_frames_that_come_late_are_marked_and_the_pace_is_found_again() -> None:
    clock = FakeClock()
    seen = []
    for frame in paced(captures([i / 10 for i in range(8)]), FakeStop(clock), clock):
        seen.append(frame.skip)
        if frame.number == 2:
            clock.now += 0.35
    assert seen == ["", "", "", "late", "late", "", "", ""]


def test_a_source_that_is_always_too_slow_is_slowed_instead_of_silenced() -> None:
    clock = FakeClock()
    frames = captures([i / 10 for i in range(60)], clock, work_s=0.15)
    skipped = [frame.skip for frame in paced(frames, FakeStop(clock), clock)]
    assert skipped.count("") > 60 * 0.3
    assert RESYNC_AFTER_S < 1


def test_thinning_keeps_the_rate_on_average() -> None:
    frames = list(thinned(captures([i / 30 for i in range(300)]), 7))
    sent = [frame for frame in frames if not frame.skip]
    assert 69 <= len(sent) <= 71
    assert {frame.skip for frame in frames} == {"", "fps"}


def late_frames(times: Iterable[tuple[float, float | None]]) -> list[int]:
    """Return the numbers of the frames that are skipped, from the arrival and the own time of each."""
    clock = FakeClock()

    def arriving() -> Iterator[Captured]:
        for number, (arrived_s, media_s) in enumerate(times):
            clock.now = arrived_s
            yield Captured(number, arrived_s, 0.04, PIXELS, media_s=media_s)

    return [frame.number for frame in without_backlog(arriving(), clock) if frame.skip == "late"]


def test_the_old_frames_of_a_backlog_are_skipped() -> None:
    # Nothing arrives from the second 2 to 8, and then a frame every 5 ms.
    times = [(max(n / 25, 8 + (n - 51) / 200 if n > 50 else 0.0), n / 25) for n in range(400)]
    skipped = late_frames(times)
    assert skipped == list(range(52, skipped[-1] + 1))
    arrived_s, media_s = times[skipped[-1] + 1]
    assert 0.9 < arrived_s - media_s < BACKLOG_S + 0.1
    assert late_frames((arrived_s, None) for arrived_s, _ in times) == []


def test_frames_that_are_no_backlog_are_sent() -> None:
    frames = range(50_000)
    # The camera's clock is slow, and frames arrive in pairs.
    assert late_frames((1.001 * (n - n % 2 * 0.9) / 5, n / 5) for n in frames) == []
    # The source stays 5 s late.
    assert late_frames((n / 25 + (5 if n > 50 else 0), n / 25) for n in range(500)) == []
    # The stream is opened anew, and begins with frames that have waited.
    assert late_frames((n / 25 if n < 50 else 60 + n / 200, n % 50 / 25) for n in range(100)) == []


class FakeDevice:
    """A camera that delivers ``frames`` frames and then fails, as if it were unplugged."""

    def __init__(self, frames: int, *, opened: bool = True) -> None:
        self.left = frames
        self.opened = opened
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.opened

    def set(self, _: int, value: float) -> bool:
        return bool(value)

    def get(self, _: int) -> float:
        return 0.0

    def read(self) -> tuple[bool, npt.NDArray[np.uint8] | None]:
        self.left -= 1
        return (True, PIXELS) if self.left >= 0 else (False, None)

    def release(self) -> None:
        self.released = True


class NoWait(threading.Event):
    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def test_a_camera_that_comes_back_is_used_again() -> None:
    devices = [FakeDevice(2), FakeDevice(0, opened=False), FakeDevice(3)]
    opened: list[FakeDevice] = []
    trouble: list[str] = []

    def opener(*_: object) -> FakeDevice:
        opened.append(devices[len(opened)])
        return opened[-1]

    source = Camera(0, opener=opener, on_trouble=trouble.append)
    stop, numbers = NoWait(), []
    for frame in source.frames(stop):
        numbers.append(frame.number)
        if frame.number == 4:
            stop.set()
    assert numbers == [0, 1, 2, 3, 4]
    assert len(trouble) == 2
    assert all(device.released for device in devices)


def test_a_camera_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceFailed, match="camera 7: cannot be opened"):
        Camera(7, opener=lambda *_: FakeDevice(0, opened=False))
    source = Camera(0, opener=lambda *_: FakeDevice(1), reconnect=False)
    with pytest.raises(SourceFailed, match="delivers no frames"):
        read(source)


def test_a_live_stream_that_ends_is_opened_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.ts", [0.0, 0.1, 0.2])
    trouble: list[str] = []
    source = LiveVideo(str(path), on_trouble=trouble.append)
    stop, count = NoWait(), 0
    for _ in source.frames(stop):
        count += 1
        if count == 5:
            stop.set()
    assert count == 5
    assert trouble
    with pytest.raises(SourceFailed, match="ended"):
        read(LiveVideo(str(path), reconnect=False))


@pytest.mark.parametrize("jump_s", [-2.0, -9000.0, 11.0, 9000.0])
def test_the_times_of_a_live_stream_continue_when_its_clock_was_set_anew(jump_s: float) -> None:
    times = MediaTimes(0.1, live=True)
    assert [times.add(known_s) for known_s in (5.0, 5.1, 5.3)] == pytest.approx([0.0, 0.1, 0.3])
    known = [5.4 + jump_s, 5.5 + jump_s, 5.7 + jump_s]
    assert [times.add(known_s) for known_s in known] == pytest.approx([0.4, 0.5, 0.7])


def test_the_times_of_a_file_are_those_that_it_states_and_always_increase() -> None:
    times = MediaTimes(0.1, live=False)
    given = [None, 3.0, 2.9, 3.0, 50.0]
    assert [times.add(known_s) for known_s in given] == pytest.approx([0.0, 0.001, 0.002, 0.003, 47.0])


def test_a_container_without_times_has_frames_at_its_usual_rate() -> None:
    times = MediaTimes(0.04, live=True)
    assert [times.add(None) for _ in range(3)] == pytest.approx([0.0, 0.04, 0.08])
