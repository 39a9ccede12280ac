"""Captures frames from a local camera, given by its number or path, with OpenCV."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamer.client.capture import Captured
from streamer.client.errors import BadInput, SourceFailed
from streamer.core.backoff import Backoff

_DEFAULT_FPS = 30.0
#: Most bytes per second of raw video that fit through USB 2. With more, a camera slows down to a few frames
#: per second: an isochronous endpoint carries at most 24.6 MB/s (USB 2.0 specification, 5.6.4).
USB_BYTES_PER_S = 24_000_000
#: Raw pixels of USB cameras (YUYV) take two bytes.
_RAW_BYTES_PER_PX = 2
#: Pixel formats that are not compressed.
_RAW = {"YUYV", "YUY2", "UYVY", "RGB3", "BGR3", "NV12", "NV21", "YU12", "GREY"}


@dataclass(frozen=True, slots=True)
class CameraMode:
    """Holds the mode to request from a camera. The camera may choose another; `Camera` then reports that."""

    #: Width and height in pixels; None leaves them as they are.
    size: tuple[int, int] | None = None
    fps: float | None = None
    #: Four characters such as ``MJPG``; empty: MJPG where raw video would not fit through USB.
    fourcc: str = ""

    def __post_init__(self) -> None:
        if self.fourcc and not (
            len(self.fourcc) == 4 and self.fourcc.isascii() and self.fourcc.isprintable()
        ):
            raise BadInput(f"fourcc is {self.fourcc!r}; it is four characters such as MJPG or YUYV")
        if self.size is not None and not all(16 <= side <= 16384 for side in self.size):
            raise BadInput(f"size is {self.size[0]}x{self.size[1]}; allowed are 16 to 16384 pixels a side")


class Camera:
    """Reads a local camera. If it is unplugged, `Camera.frames` opens it again once it is back."""

    live = True
    total = None

    def __init__(
        self,
        device: int | str,
        mode: CameraMode | None = None,
        *,
        reconnect: bool = True,
        on_trouble: Callable[[str], None] | None = None,
        opener: Callable[..., Any] = cv2.VideoCapture,
    ) -> None:
        self.shown = f"camera {device}"
        self._device_name = device
        self._mode = mode or CameraMode()
        self._reconnect = reconnect
        self._on_trouble = on_trouble or (lambda _: None)
        self._opener = opener
        #: The last report about the mode, kept so that it is not repeated each time the camera is opened.
        self._said = ""
        self._device: Any = self._open()
        if self._device is None:
            raise SourceFailed(f"{self.shown}: cannot be opened{_known_cameras()}", temporary=True)

    def _open(self) -> Any | None:
        # OpenCV writes warnings to the terminal otherwise.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        # A path is resolved again each time: its camera may have another number when it comes back. Only the
        # backend of Linux takes paths; the others take numbers.
        backend = cv2.CAP_V4L2 if isinstance(self._device_name, str) else cv2.CAP_ANY
        device = self._opener(self._device_name, backend)
        if not device.isOpened():
            device.release()
            return None
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        said = _choose(device, self._mode)
        if said and said != self._said:
            self._on_trouble(f"{self.shown} {said}")
        self._said = said
        return device

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield frames as the camera delivers them; each has the time at which it was read."""
        number, begun, backoff = 0, time.monotonic(), Backoff()
        try:
            while not stop.is_set():
                taken, image = self._device.read() if self._device is not None else (False, None)
                if taken and image is not None:
                    backoff.reset()
                    fps = self._device.get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
                    yield Captured(number, time.monotonic() - begun, 1.0 / fps, np.asarray(image, np.uint8))
                    number += 1
                    continue
                self._release()
                if not self._reconnect:
                    raise SourceFailed(f"{self.shown}: delivers no frames")
                delay_s = backoff.next_s()
                self._on_trouble(f"{self.shown} delivers no frames; next try in {delay_s:.1f} s")
                if not stop.wait(delay_s):
                    self._device = self._open()
        finally:
            self._release()

    def _release(self) -> None:
        if self._device is not None:
            self._device.release()
            self._device = None


def _choose(device: Any, mode: CameraMode) -> str:
    """Request a mode from an open camera; return how it deviates from that, or an empty text.

    The pixel format comes first, because it decides which sizes there are; then size, then rate.
    """
    fourcc = mode.fourcc.upper() or ("MJPG" if _overloads_usb(device, mode) else "")
    if fourcc:
        device.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*fourcc))
    if mode.size is not None:
        device.set(cv2.CAP_PROP_FRAME_WIDTH, mode.size[0])
        device.set(cv2.CAP_PROP_FRAME_HEIGHT, mode.size[1])
    if mode.fps is not None:
        device.set(cv2.CAP_PROP_FPS, mode.fps)
    otherwise = []
    size = _size(device)
    if mode.size is not None and size != mode.size:
        otherwise.append(f"{size[0]}x{size[1]} instead of {mode.size[0]}x{mode.size[1]}")
    if fourcc and (found := _fourcc(device)) != fourcc:
        otherwise.append(f"{found or 'an unknown format'} instead of {fourcc}")
    return f"delivers {', '.join(otherwise)}" if otherwise else ""


def _overloads_usb(device: Any, mode: CameraMode) -> bool:
    """Return whether raw video in the wanted mode would need more bytes per second than USB 2 carries."""
    found = _fourcc(device)
    if found and found not in _RAW:
        return False  # it is compressed already
    width, height = mode.size or _size(device)
    fps = mode.fps or device.get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
    return bool(width * height * fps * _RAW_BYTES_PER_PX > USB_BYTES_PER_S)


def _size(device: Any) -> tuple[int, int]:
    return int(device.get(cv2.CAP_PROP_FRAME_WIDTH)), int(device.get(cv2.CAP_PROP_FRAME_HEIGHT))


def _fourcc(device: Any) -> str:
    """Return the pixel format as four characters; empty if the camera does not say."""
    code = int(device.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    return code.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ")


def _known_cameras() -> str:
    """Return a clause that names the cameras of this machine, as far as ``/dev`` lists them."""
    root = Path("/dev")
    found = sorted(path.name.removeprefix("video") for path in root.glob("video[0-9]*"))
    return f"; this machine has {', '.join(found)}" if found else "; this machine has no camera in /dev"
