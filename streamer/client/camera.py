"""Captures frames from a local camera, given by its number, with OpenCV."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from streamer.client.capture import Captured
from streamer.client.errors import SourceFailed
from streamer.core.backoff import Backoff

_DEFAULT_FPS = 30.0


class Camera:
    """A local camera. If it is unplugged, it is opened again once it is back."""

    live = True
    total = None

    def __init__(
        self,
        index: int,
        *,
        reconnect: bool = True,
        on_trouble: Callable[[str], None] | None = None,
        opener: Callable[[int], Any] = cv2.VideoCapture,
    ) -> None:
        self.shown = f"camera {index}"
        self._index = index
        self._reconnect = reconnect
        self._on_trouble = on_trouble or (lambda _: None)
        self._opener = opener
        self._device: Any = self._open()
        if self._device is None:
            raise SourceFailed(f"{self.shown}: cannot be opened{_known_cameras()}")

    def _open(self) -> Any | None:
        # OpenCV writes warnings to the terminal otherwise.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        device = self._opener(self._index)
        if not device.isOpened():
            device.release()
            return None
        device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
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


def _known_cameras() -> str:
    """Return a clause that names the cameras of this machine, as far as ``/dev`` lists them."""
    root = Path("/dev")
    found = sorted(path.name.removeprefix("video") for path in root.glob("video[0-9]*"))
    return f"; this machine has {', '.join(found)}" if found else "; this machine has no camera in /dev"
