"""Decides what a SOURCE argument names: a camera, a file, a folder or an address; opens it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from streamer.assets import SAMPLE_FILE
from streamer.client.capture import Source
from streamer.client.errors import BadInput, SourceFailed
from streamer.client.folder import SUFFIXES, ImageFiles
from streamer.console.redact import redact

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "srt")
#: The word for the clip that comes with the project.
SAMPLE = "sample"
_CAMERA = re.compile(r"(?:/dev/video)?(\d{1,3})")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is read."""

    fps: float | None = None
    loop: bool = False
    reconnect: bool = True
    on_trouble: Callable[[str], None] | None = None


def is_picture_source(text: str) -> bool:
    """Whether SOURCE names files of pictures: those are sent in full unless asked otherwise."""
    path = Path(text)
    return "://" not in text and (path.is_dir() or path.suffix.lower() in SUFFIXES)


def open_source(text: str, options: SourceOptions | None = None) -> Source:
    """Open what ``text`` names. Blocks up to 10 s for a network stream.

    Raises BadInput when it names nothing, SourceFailed when it cannot be opened.
    """
    asked = options or SourceOptions()
    camera = _CAMERA.fullmatch(text)
    if camera and not (text.isdecimal() and Path(text).exists()):
        from streamer.client.camera import Camera  # noqa: PLC0415 - OpenCV, only for cameras

        return Camera(int(camera.group(1)), reconnect=asked.reconnect, on_trouble=asked.on_trouble)
    if "://" in text:
        return _open_address(text, asked)
    path = Path(text)
    if text == SAMPLE and not path.exists():  # a file or folder of that name goes first
        path = SAMPLE_FILE
    if path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES):
        return ImageFiles(path, fps=asked.fps, loop=asked.loop)
    if path.is_file():
        from streamer.client.video import VideoFile  # noqa: PLC0415 - PyAV, only for videos

        return VideoFile(str(path), loop=asked.loop)
    if path.exists():
        raise SourceFailed(f"{text}: is neither a file nor a folder")
    raise BadInput(
        f"source {text!r} does not exist; give `{SAMPLE}`, a camera number, a video file, an image or folder "
        f"of images, or an address ({', '.join(f'{scheme}://' for scheme in SCHEMES[:4])})"
    )


def _open_address(text: str, asked: SourceOptions) -> Source:
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise BadInput(f"source {redact(text)!r}: allowed are {', '.join(f'{s}://' for s in SCHEMES)}")
    from streamer.client.video import LiveVideo, VideoFile, has_length  # noqa: PLC0415 - PyAV, only for videos

    if scheme in ("http", "https") and has_length(text):
        return VideoFile(text, loop=asked.loop)
    return LiveVideo(text, reconnect=asked.reconnect, on_trouble=asked.on_trouble)
