"""Reads frames of a video file or a network stream (RTSP, HTTP) with PyAV: `VideoFile` and `LiveVideo`.

Other modules import it only when they open a video, because it loads PyAV.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.sidedata.sidedata import Type
from av.stream import Discard

from streamer.client.capture import Captured, MediaTimes, paced
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
#: FFmpeg analyses a stream before it returns the first frame: by default it reads 20 frames, for up to 5 s.
#: The client does not need the frame rate, nor times where the first packet has none, as in raw H.264, and
#: one second is enough for the rest of the analysis. FFmpeg's flag nobuffer would not help: it discards
#: what was read, including the first key frame (decision 0075).
_QUICK_START = {"fpsprobesize": "0", "analyzeduration": "1000000", "max_ts_probe": "1"}
#: Use TCP for media, or UDP if the camera refuses TCP, within the same RTSP connection.
_RTSP = {"rtsp_transport": "tcp+udp", "rtsp_flags": "prefer_tcp"}
#: Bytes from which FFmpeg guesses the format of a TCP stream. It always reads as many of raw MJPEG, which
#: with its default of 1 MB takes longer than the time limit for a slow camera.
_TCP_PROBE = {"formatprobesize": "16384"}
#: If a live stream is read later than this after it was opened, it is opened again: it holds old frames.
STALE_S = 3.0
#: Formats that deliver a live stream in segments of some seconds, each at once when it is complete.
_SEGMENTED = ("hls", "dash")
#: Begin with the newest segment. By default FFmpeg begins with the third newest, and stays that far behind.
_NEWEST_SEGMENT = {"live_start_index": "-1"}
#: Formats whose times do not show how old a frame is: FFmpeg makes up those of MJPEG, and segments arrive in
#: bursts even without a stall.
_UNTIMED = (*_SEGMENTED, "mpjpeg", "mjpeg", "jpeg_pipe")
#: Errors of opening that would occur again in another attempt.
_LASTING = (
    av.error.HTTPBadRequestError,
    av.error.HTTPForbiddenError,
    av.error.HTTPUnauthorizedError,
    av.error.InvalidDataError,
    av.error.ProtocolNotFoundError,
    ValueError,
)


class VideoFile:
    """Reads a video file, or a video with a known length at an address.

    Capture times are those of the container. Pass ``container`` if the video is already open.
    """

    live = False

    def __init__(self, address: str, *, loop: bool = False, container: Any = None) -> None:
        self.shown = redact(address)
        self._address = address
        self._loop = loop
        #: The container that was opened first; None once it has been read.
        self._container: Any = container or open_container(address)
        with _closed_on_error(self._container):
            stream = _video_stream(self._container, self.shown)
            rate = float(stream.average_rate or _DEFAULT_FPS)
            length_s = _seconds(stream.duration, stream.time_base)
            frames = stream.frames or round((length_s or 0) * rate)
        self.total = None if loop or not frames else int(frames)

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield the frames. With ``loop`` they repeat, and capture times continue."""
        number, offset_s = 0, 0.0
        while not stop.is_set():
            begun_at = number
            opened, self._container = self._container, None
            with contextlib.closing(opened or open_container(self._address)) as container:
                for frame, time_s, duration_s in _decoded(container, self._address, live=False):
                    if stop.is_set():
                        return
                    yield Captured(number, offset_s + time_s, duration_s, upright(frame))
                    number += 1
                    end_s = time_s + duration_s
            if number == begun_at:
                raise SourceFailed(f"{self.shown}: contains no frame that can be decoded")
            if not self._loop:
                return
            offset_s += end_s


class LiveVideo:
    """Reads a live network stream, and opens it again after a loss. Capture times are times of arrival.

    A segmented stream (HLS) is played at its own pace: the frames of a segment arrive at once, and a reader
    that takes the newest frame would get only the last of them.

    Pass ``container`` if the stream is already open, because some cameras serve only one client at a time.
    """

    live = True
    total = None

    def __init__(
        self,
        address: str,
        *,
        reconnect: bool = True,
        on_trouble: Callable[[str], None] | None = None,
        container: Any = None,
    ) -> None:
        self.shown = redact(address)
        self._address = address
        self._reconnect = reconnect
        self._on_trouble = on_trouble or (lambda _: None)
        # Open the stream here, so that the caller learns at once of a wrong address.
        self._container: Any = container or open_container(address)
        self._opened_at = time.monotonic()
        with _closed_on_error(self._container):
            _video_stream(self._container, self.shown)

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield frames as they arrive."""
        number, begun, backoff = 0, time.monotonic(), Backoff()
        if begun - self._opened_at > STALE_S:
            self._close()
        while not stop.is_set():
            why = "the stream ended"
            try:
                if self._container is None:
                    self._container = open_container(self._address)
                captured = self._captured(number, begun)
                if self._container.format.name in _SEGMENTED:
                    captured = paced(captured, stop)
                for frame in captured:
                    if stop.is_set():
                        return
                    backoff.reset()
                    frame.skip = ""  # a reader that is late gets all frames, too, unless it leaves some out
                    yield frame
                    number = frame.number + 1
            except SourceFailed as error:
                why = str(error)
            finally:
                self._close()
            if stop.is_set():
                return
            if not self._reconnect:
                raise SourceFailed(f"{self.shown}: {why}")
            delay_s = backoff.next_s()
            self._on_trouble(f"source lost: {why}; next try in {delay_s:.1f} s")
            stop.wait(delay_s)

    def _captured(self, number: int, begun: float) -> Iterator[Captured]:
        """Yield the frames of the open container, counted from ``number``.

        Their capture times are times of arrival after ``begun``, in monotonic seconds. Those of a segmented
        stream follow its own times instead, beginning with the arrival of the first frame.
        """
        is_segmented = self._container.format.name in _SEGMENTED
        is_timed = self._container.format.name not in _UNTIMED
        offset_s: float | None = None
        for frame, media_s, duration_s in _decoded(self._container, self._address, live=True):
            time_s = time.monotonic() - begun
            if offset_s is None:
                offset_s = time_s - media_s
            if is_segmented:
                time_s = offset_s + media_s
            captured = Captured(number, time_s, duration_s, upright(frame))
            captured.media_s = media_s if is_timed and frame.pts is not None else None
            yield captured
            number += 1

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


@contextlib.contextmanager
def _closed_on_error(container: Any) -> Iterator[None]:
    try:
        yield
    except BaseException:
        container.close()
        raise


def has_length(container: Any) -> bool:
    """Whether an open video has a known length, as recordings have.

    A live MP4 is a sequence of fragments without an end, and FFmpeg reports the length of the first one.
    """
    fragments = "mp4" in container.format.name and not any(each.frames for each in container.streams.video)
    if fragments and container.size < 0:
        return False
    return bool(container.duration and container.duration > 0)


def is_still(container: Any) -> bool:
    """Whether an open address is a single image. Reads that image, or the first two of a stream of images."""
    if not container.format.name.endswith("_pipe"):
        return False
    packets = container.demux(_video_stream(container, ""))
    try:
        # The demuxer marks the end with an empty packet.
        return not any(packet.size for packet in (next(packets, None), next(packets, None))[1:] if packet)
    except (av.error.FFmpegError, OSError):
        return True


def open_container(address: str) -> Any:
    """Open a video for reading, with time limits for addresses. Raises SourceFailed, without credentials."""
    scheme = address.partition("://")[0].lower() if "://" in address else ""
    options: dict[str, str] = {}
    timeout: tuple[float, float] | None = None
    if scheme:
        options |= _QUICK_START
        timeout = (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
    if scheme in ("rtsp", "rtsps"):
        options |= _RTSP
    if scheme in ("http", "https"):
        options |= _NEWEST_SEGMENT
    try:
        if scheme == "tcp":
            # Raw H.264 that is joined between key frames shows its format only later.
            with contextlib.suppress(av.error.InvalidDataError):
                return av.open(address, options=options | _TCP_PROBE, timeout=timeout)
        return av.open(address, options=options, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        lasting = isinstance(error, _LASTING) or (
            isinstance(error, av.error.HTTPNotFoundError) and scheme in ("http", "https")
        )
        raise SourceFailed(
            f"{redact(address)}: cannot be opened: {_reason(error, address)}",
            temporary=timeout is not None and not lasting,
        ) from None


def _reason(error: Exception, address: str) -> str:
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return f"the user name or the password is missing or wrong ({_status(error)})"
    if isinstance(error, av.error.ExitError):  # the time limit ended the attempt
        return f"no answer within {OPEN_TIMEOUT_S:g} s"
    text = getattr(error, "strerror", None) or str(error)
    return redact(text, (address, *secrets_of(address)))


def _status(error: Exception) -> int:
    return 401 if isinstance(error, av.error.HTTPUnauthorizedError) else 403


def _video_stream(container: Any, shown: str) -> Any:
    if not container.streams.video:
        raise SourceFailed(f"{shown}: contains no video")
    return container.streams.video[0]


def _seconds(value: int | None, base: Any) -> float | None:
    return None if value is None or base is None else float(value * base)


def _decoded(container: Any, address: str, *, live: bool) -> Iterator[tuple[Any, float, float]]:
    """Yield decoded frames, not yet upright, with time and duration in seconds. Skips damaged packets."""
    shown = redact(address)
    stream = _video_stream(container, shown)
    _select(container, stream)
    _set_threads(stream, live=live)
    usual_s = 1.0 / float(stream.average_rate or _DEFAULT_FPS)
    times, damaged = MediaTimes(usual_s, live=live), 0
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
            raise SourceFailed(f"{shown}: {_reason(error, address)}") from None
        for frame in frames:
            time_s = times.add(_seconds(frame.pts, frame.time_base))
            duration_s = _seconds(getattr(frame, "duration", None) or None, frame.time_base) or usual_s
            yield frame, time_s, duration_s


def _select(container: Any, stream: Any) -> None:
    """Read this stream only: otherwise FFmpeg also downloads the other sizes that an HLS address offers."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def _set_threads(stream: Any, *, live: bool) -> None:
    """Set up the decoder to use all cores for a file, and to add no delay to a live stream."""
    if live:
        # With a frame for each thread, the decoder would hold back as many frames as there are cores.
        stream.thread_type = "SLICE"
        stream.codec_context.flags |= Flags.low_delay
    else:
        stream.thread_type = "AUTO"


def upright(frame: Any) -> Pixels:
    """Return BGR pixels, mirrored and rotated as the container's display matrix specifies."""
    pixels = frame.to_ndarray(format="bgr24")
    matrix = next((data for data in frame.side_data if data.type is Type.DISPLAYMATRIX), None)
    if matrix is None:
        return np.asarray(pixels, np.uint8)
    return displayed(pixels, np.frombuffer(bytes(matrix), np.int32))


def displayed(pixels: Pixels, matrix: npt.NDArray[np.int32]) -> Pixels:
    """Return the pixels as a display matrix shows them, rounded to the nearest of eight orientations.

    The eight orientations are the quarter turns, mirrored or not. The matrix holds the nine numbers a, b, u,
    c, d, ... in the order of the MP4 track header (ISO/IEC 14496-12, 8.3.2). It shows the pixel at (x, y) at
    (a x + c y, b x + d y).
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
