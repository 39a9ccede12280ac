"""Tests sources: times and rotation of video files, natural order of folders, cameras, URLs that fail."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from streamer.client.camera import Camera
from streamer.client.capture import (
    Captured,
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


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "the source is empty"),
        (" ", "the source is empty"),
        ("http://", "has no host"),
        ("rtsp:///stream", "has no host"),
        ("rtsp://:554/stream", "has no host"),
        ("udp://127.0.0.1:65536", "is no address: Port out of range"),
        ("http://[::1/jpg", "is no address: Invalid IPv6 URL"),
    ],
)
def test_what_names_no_source_is_a_usage_error(source: str, says: str) -> None:
    """An empty text, as of a variable that is not set, would be the current folder."""
    with pytest.raises(BadInput, match=says):
        open_source(source)


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
