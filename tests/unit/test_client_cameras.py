"""Cameras and videos of the client: names, paths, modes, display matrices, and passwords in addresses."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamer.client import sources
from streamer.client.camera import Camera, CameraMode
from streamer.client.errors import BadInput, SourceFailed
from streamer.client.sources import SourceOpener, SourceOptions, camera_of, check_credentials, open_source
from streamer.client.video import VideoFile, displayed
from tests.unit.test_client_sources import NoWait, write_video

ONE = 1 << 16
#: Maps the matrix (a, b, c, d) of a track header to the corner where it shows the stored upper left corner.
MATRICES = {
    (1, 0, 0, 1): "upper left",
    (-1, 0, 0, 1): "upper right",
    (1, 0, 0, -1): "lower left",
    (-1, 0, 0, -1): "lower right",
    (0, 1, 1, 0): "upper left",
    (0, 1, -1, 0): "upper right",
    (0, -1, 1, 0): "lower left",
    (0, -1, -1, 0): "lower right",
}


def with_matrix(path: Path, matrix: tuple[int, ...]) -> Path:
    """Write the matrix into the track header of an MP4 file."""
    a, b, c, d = matrix
    plain = struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30)
    wanted = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    at = data.index(plain, data.index(b"tkhd"))
    path.write_bytes(data[:at] + wanted + data[at + len(plain) :])
    return path


def corner(image: npt.NDArray[np.uint8]) -> str:
    """Return the corner that is red."""
    height, width = image.shape[0], image.shape[1]
    rows, columns = {"upper": height // 4, "lower": -height // 4}, {"left": width // 4, "right": -width // 4}
    (found,) = [
        f"{row} {column}"
        for row, y in rows.items()
        for column, x in columns.items()
        if image[y, x, 2] > 180 and image[y, x, 0] < 90
    ]
    return found


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_each_display_matrix_is_applied(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Check rotations and mirror images: the size reveals a quarter turn, and the red corner the rest."""
    path = with_matrix(write_video(tmp_path / "v.mp4", [0.0, 0.1]), matrix)
    image = next(VideoFile(str(path)).frames(threading.Event())).pixels()
    assert image.shape == ((96, 64, 3) if matrix[0] == 0 else (64, 96, 3))
    assert corner(image) == MATRICES[matrix]


@pytest.mark.parametrize("matrix", MATRICES, ids=str)
def test_every_pixel_goes_where_the_matrix_says(matrix: tuple[int, ...]) -> None:
    a, b, c, d = matrix
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    shown = displayed(stored, np.array([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30], np.int32))
    # A mirrored axis yields negative indices, which count from the end.
    for y, x in np.ndindex(2, 3):
        right, down = a * x + c * y, b * x + d * y
        right -= (a + c) < 0
        down -= (b + d) < 0
        assert (shown[down, right] == stored[y, x]).all()


@pytest.mark.parametrize(
    ("address", "sign"),
    [
        ("rtsp://admin:p@ss-dummy@camera/1", "`@`"),
        ("rtsp://admin:p#ss-dummy@camera/1", "`#`"),
        ("rtsp://admin:12#34-dummy@camera:554/1", "`#`"),
        ("rtsp://admin:a:b-dummy@camera/1", "`:`"),
        ("rtsp://admin:p/ss-dummy@camera/1", "`/`"),
        ("rtsp://admin:p?ss-dummy@camera/1", "`[?]`"),
        ("rtsp://admin:100%-dummy@camera/1", "`%`"),
        ("rtsp://admin:p@ss#1:x-dummy@camera/1", "`#`"),
        ("rtsp://admin:a b-dummy@camera/1", "` `"),
        ("rtsp://admin:a\tb-dummy@camera/1", "`\t`"),
        ("rtsp://admin:a'b-dummy@camera/1", "`'`"),
        ('rtsp://admin:a"b-dummy@camera/1', '`"`'),
        ("http://me@home.example:p#dummy@camera/jpg", "`#`"),
        ("rtsp://me@home.example:pass-dummy@[::1]:554/1", "`@`"),
    ],
)
def test_a_password_that_separates_the_parts_of_the_address_is_refused(address: str, sign: str) -> None:
    with pytest.raises(BadInput, match=rf"contains {sign} as it is.*`@` as `%40`.*`#` as `%23`") as caught:
        open_source(address)
    for part in ("dummy", "p@ss", "p#ss", "12#34", "home.example", "100%"):
        assert part not in str(caught.value)
    assert "***@" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://camera/1",
        "rtsp://camera:554/user@stream",
        "rtsp://[fe80::1]:554/user@stream",
        "rtsp://admin:p%40ss%23%3A@camera:8554/1",
        "rtsp://admin@camera/1",
        "http://camera:8080/jpg?mail=a@b",
        "http://admin:pass@camera/jpg?mail=a@b",
        "udp://@239.0.0.1:5000",
    ],
)
def test_other_addresses_are_taken_as_they_are(address: str) -> None:
    check_credentials(address)


class Device:
    """Simulates a camera that records each requested setting; with ``fixed`` it keeps its own mode."""

    def __init__(
        self, fourcc: str = "YUYV", size: tuple[int, int] = (640, 480), *, fixed: bool = False
    ) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._fixed = fixed
        self._values: dict[int, float] = {
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*fourcc),
            cv2.CAP_PROP_FRAME_WIDTH: size[0],
            cv2.CAP_PROP_FRAME_HEIGHT: size[1],
            cv2.CAP_PROP_FPS: 30.0,
        }

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def set(self, prop: int, value: float) -> bool:
        names = {
            cv2.CAP_PROP_FOURCC: "fourcc",
            cv2.CAP_PROP_FRAME_WIDTH: "width",
            cv2.CAP_PROP_FRAME_HEIGHT: "height",
            cv2.CAP_PROP_FPS: "fps",
        }
        if prop in names:
            text = int(value).to_bytes(4, "little").decode() if names[prop] == "fourcc" else value
            self.asked.append((names[prop], text))
            if not self._fixed:
                self._values[prop] = value
        return not self._fixed

    def get(self, prop: int) -> float:
        return self._values.get(prop, 0.0)

    def release(self) -> None:
        return


MJPG = ("fourcc", "MJPG")


@pytest.mark.parametrize(
    ("device", "mode", "asked"),
    [
        (Device(), CameraMode(), []),
        (Device(), CameraMode((640, 480), 30), [("width", 640), ("height", 480), ("fps", 30)]),
        (Device(), CameraMode((1280, 720)), [MJPG, ("width", 1280), ("height", 720)]),
        (Device(), CameraMode((1280, 720), 5), [("width", 1280), ("height", 720), ("fps", 5)]),
        (Device(), CameraMode((1280, 720), 30, "yuyv"), [("fourcc", "YUYV")]),
        (Device(size=(1920, 1080)), CameraMode(), [MJPG]),
        (Device("MJPG", (1920, 1080)), CameraMode(), []),
        (Device("H264", (1920, 1080)), CameraMode(fps=30), [("fps", 30)]),
        (Device(), CameraMode(fps=60), [MJPG, ("fps", 60)]),  # 37 MB/s as raw video
    ],
)
def test_a_camera_is_asked_for_a_mode_that_fits_through_usb(
    device: Device, mode: CameraMode, asked: list[tuple[str, Any]]
) -> None:
    """Check that the pixel format is set first, because it decides which sizes and rates exist."""
    Camera("/dev/video0", mode, opener=lambda *_: device)
    assert device.asked[: len(asked)] == asked
    assert ("fourcc" in dict(device.asked)) == ("fourcc" in dict(asked))


def test_a_camera_that_does_otherwise_is_reported_once() -> None:
    said: list[str] = []
    camera = Camera(
        2,
        CameraMode((1280, 720), 30, "MJPG"),
        opener=lambda *_: Device(fixed=True),
        on_trouble=said.append,
    )
    camera._open()
    assert said == ["camera 2 delivers 640x480 instead of 1280x720, YUYV instead of MJPG"]


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(BadInput, match="fourcc is 'MJPEG'"):
        CameraMode(fourcc="MJPEG")
    with pytest.raises(BadInput, match="size is 0x720"):
        CameraMode((0, 720))
    with pytest.raises(BadInput, match="--size and --fourcc are for local cameras"):
        open_source("sample", SourceOptions(size=(1280, 720)))


def test_paths_and_links_of_cameras_are_cameras(tmp_path: Path) -> None:
    assert camera_of("0") == 0
    for path in ("/dev/video0", "/dev/v4l/by-id/usb-Camera-video-index0", "/dev/v4l/by-path/pci-0-index1"):
        assert camera_of(path) == path
    link = tmp_path / "front"
    link.symlink_to("/dev/video7")  # as a udev rule makes it; the camera may be unplugged
    assert camera_of(str(link)) == str(link)
    (tmp_path / "v.mp4").write_bytes(b"")
    other = tmp_path / "other"
    other.symlink_to(tmp_path / "v.mp4")
    for text in (str(other), str(tmp_path), "video0", "rtsp://0", "/dev/null"):
        assert camera_of(text) is None


def test_a_path_is_opened_as_a_path_each_time() -> None:
    """Check that each opening uses the path, because the number may differ when the camera comes back."""
    opened: list[tuple[Any, ...]] = []

    def opener(*what: Any) -> Device:
        opened.append(what)
        return Device()

    Camera("/dev/v4l/by-id/usb-Camera-video-index0", opener=opener)._open()
    assert opened == [("/dev/v4l/by-id/usb-Camera-video-index0", cv2.CAP_V4L2)] * 2


def test_opening_is_tried_again_while_that_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    refused = SourceFailed("refused", temporary=True)
    answers: list[Exception | str] = [refused, refused, "open"]

    def answer(*_: object) -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(sources, "open_source", answer)
    opened: Any = SourceOpener("x", SourceOptions(on_trouble=said.append)).open(NoWait())
    assert opened == "open"
    assert [text.partition(";")[0] for text in said] == ["refused", "refused"]

    for failure, options in (
        (SourceFailed("no video"), SourceOptions()),
        (SourceFailed("refused", temporary=True), SourceOptions(reconnect=False)),
        (BadInput("nothing"), SourceOptions()),
    ):
        answers[:] = [failure]
        with pytest.raises(type(failure)):
            SourceOpener("x", options).open(NoWait())
    stopped = threading.Event()
    stopped.set()
    assert SourceOpener("x", SourceOptions()).open(stopped) is None
