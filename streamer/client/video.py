"""Reads frames of a video file or a network stream (RTSP, HTTP) with PyAV.

Imported only when one is opened.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np

from streamer.client.capture import Captured
from streamer.client.encoder import Pixels
from streamer.client.errors import SourceFailed
from streamer.core.backoff import Backoff
from streamer.core.redact import redact, secrets_of

# Log messages of FFmpeg may contain addresses with credentials.
av.logging.set_level(None)

OPEN_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 10.0
#: Consecutive packets that cannot be decoded before a source counts as broken.
MAX_DAMAGED = 300
_DEFAULT_FPS = 25.0
_RTSP = {"rtsp_transport": "tcp"}
_LOW_DELAY = {"fflags": "nobuffer", "flags": "low_delay"}


class VideoFile:
    """A video file, or an address of a video with a known length.

    Capture times are those of the container.
    """

    live = False

    def __init__(self, address: str, *, loop: bool = False) -> None:
        self.shown = redact(address)
        self._address = address
        self._loop = loop
        with contextlib.closing(open_container(address)) as container:
            stream = _video_stream(container, self.shown)
            rate = float(stream.average_rate or _DEFAULT_FPS)
            length_s = _seconds(stream.duration, stream.time_base)
            frames = stream.frames or round((length_s or 0) * rate)
        self.total = None if loop or not frames else int(frames)

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield the frames. With ``loop`` they repeat, and capture times continue."""
        number, offset_s = 0, 0.0
        while not stop.is_set():
            begun_at = number
            with contextlib.closing(open_container(self._address)) as container:
                for image, time_s, duration_s in _decoded(container, self.shown):
                    if stop.is_set():
                        return
                    yield Captured(number, offset_s + time_s, duration_s, image)
                    number += 1
                    end_s = time_s + duration_s
            if number == begun_at:
                raise SourceFailed(f"{self.shown}: contains no frame that can be decoded")
            if not self._loop:
                return
            offset_s += end_s


class LiveVideo:
    """A live network stream. Capture times are times of arrival; a lost stream is opened again."""

    live = True
    total = None

    def __init__(
        self, address: str, *, reconnect: bool = True, on_trouble: Callable[[str], None] | None = None
    ) -> None:
        self.shown = redact(address)
        self._address = address
        self._reconnect = reconnect
        self._on_trouble = on_trouble or (lambda _: None)
        # Opened here, so that a wrong address is reported at once.
        self._container: Any = open_container(address, live=True)
        try:
            _video_stream(self._container, self.shown)
        except SourceFailed:
            self._container.close()
            raise

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield frames as they arrive."""
        number, begun, backoff = 0, time.monotonic(), Backoff()
        while not stop.is_set():
            why = "the stream ended"
            try:
                if self._container is None:
                    self._container = open_container(self._address, live=True)
                for image, _, duration_s in _decoded(self._container, self.shown):
                    if stop.is_set():
                        return
                    backoff.reset()
                    yield Captured(number, time.monotonic() - begun, duration_s, image)
                    number += 1
            except SourceFailed as error:
                why = str(error)
            finally:
                if self._container is not None:
                    self._container.close()
                    self._container = None
            if not self._reconnect:
                raise SourceFailed(f"{self.shown}: {why}")
            delay_s = backoff.next_s()
            self._on_trouble(f"source lost: {why}; next try in {delay_s:.1f} s")
            stop.wait(delay_s)


def has_length(address: str) -> bool:
    """Whether a network address is a video with a known length. Raises SourceFailed."""
    with contextlib.closing(open_container(address)) as container:
        return bool(container.duration and container.duration > 0)


def open_container(address: str, *, live: bool = False) -> Any:
    """Open a video for reading, with time limits for addresses. Raises SourceFailed, without credentials."""
    options: dict[str, str] = dict(_LOW_DELAY) if live else {}
    timeout: tuple[float, float] | None = None
    if "://" in address:
        timeout = (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
        if address.startswith(("rtsp:", "rtsps:")):
            options |= _RTSP
    try:
        return av.open(address, options=options, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise SourceFailed(f"{redact(address)}: cannot be opened: {_reason(error, address)}") from None


def _reason(error: Exception, address: str) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return redact(text, (address, *secrets_of(address)))


def _video_stream(container: Any, shown: str) -> Any:
    if not container.streams.video:
        raise SourceFailed(f"{shown}: contains no video")
    return container.streams.video[0]


def _seconds(value: int | None, base: Any) -> float | None:
    return None if value is None or base is None else float(value * base)


def _decoded(container: Any, shown: str) -> Iterator[tuple[Pixels, float, float]]:
    """Yield pixels (upright), time and duration in seconds. Skips damaged packets."""
    stream = _video_stream(container, shown)
    stream.thread_type = "AUTO"
    usual_s = 1.0 / float(stream.average_rate or _DEFAULT_FPS)
    #: Time of the first frame; None before it, or when the container has no times.
    origin_s: float | None = None
    last_s, damaged = -usual_s, 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
            damaged = 0
        except av.error.InvalidDataError:
            damaged += 1
            if damaged > MAX_DAMAGED:
                raise SourceFailed(f"{shown}: {damaged} packets in a row cannot be decoded") from None
            continue
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, OSError) as error:
            raise SourceFailed(f"{shown}: {_reason(error, shown)}") from None
        for frame in frames:
            known_s = _seconds(frame.pts, frame.time_base)
            if origin_s is None:
                origin_s = known_s
            time_s = last_s + usual_s if known_s is None or origin_s is None else known_s - origin_s
            if time_s <= last_s:  # presentation times must increase, even if those in the container do not
                time_s = last_s + usual_s / 100
            last_s = time_s
            duration_s = _seconds(getattr(frame, "duration", None) or None, frame.time_base) or usual_s
            yield _upright(frame), time_s, duration_s


def _upright(frame: Any) -> Pixels:
    """Return BGR pixels, rotated as the display matrix of the container demands."""
    image = frame.to_ndarray(format="bgr24")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image
