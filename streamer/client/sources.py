"""Opens what a SOURCE argument names: a camera, a file, a folder or an address. Reads image files itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from streamer.assets import SAMPLE_FILE
from streamer.client.capture import Captured, Source
from streamer.client.errors import BadInput, SourceFailed
from streamer.core.redact import redact

#: Image formats that the client decodes. The first four are sent as they are.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
#: Rate of image files, which have no capture times.
DEFAULT_FPS = 5.0


class ImageFiles:
    """One image file, or the image files of a folder in natural order.

    ``fps`` determines their capture times.
    """

    live = False

    def __init__(self, path: Path, *, fps: float | None = None, loop: bool = False) -> None:
        self.shown = str(path)
        self._paths = list_images(path) if path.is_dir() else [path]
        self._interval_s = 1.0 / (fps or DEFAULT_FPS)
        self._loop = loop
        self.total = None if loop else len(self._paths)

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield the bytes of the files. A file that cannot be read ends the source with SourceFailed."""
        number = 0
        while not stop.is_set():
            for path in self._paths:
                if stop.is_set():
                    return
                try:
                    data = path.read_bytes()
                except OSError as error:
                    raise SourceFailed(f"{path}: {error.strerror or error}") from error
                yield Captured(number, number * self._interval_s, self._interval_s, data, path.name)
                number += 1
            if not self._loop:
                return


def list_images(folder: Path) -> list[Path]:
    """Return the image files of a folder in natural order (2 before 10).

    Raises SourceFailed if there is none.
    """
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
        ]
    except OSError as error:
        raise SourceFailed(f"{folder}: {error.strerror or error}") from error
    if not found:
        raise SourceFailed(f"{folder}: contains no image ({', '.join(SUFFIXES)})")
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that compares runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]


SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp", "udp", "tcp", "srt")
#: SOURCE argument that stands for the clip that comes with the project.
SAMPLE = "sample"
_CAMERA = re.compile(r"(?:/dev/video)?(\d{1,3})")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read a source."""

    fps: float | None = None
    loop: bool = False
    reconnect: bool = True
    on_trouble: Callable[[str], None] | None = None


def is_image_source(text: str) -> bool:
    """Whether SOURCE names image files; by default, `push` sends every one of them."""
    path = Path(text)
    return "://" not in text and (path.is_dir() or path.suffix.lower() in SUFFIXES)


def open_source(text: str, options: SourceOptions | None = None) -> Source:
    """Open the source that ``text`` names. Blocks up to 10 s for a network stream.

    Raises BadInput when there is no such source, SourceFailed when it cannot be opened.
    """
    options = options or SourceOptions()
    camera = _CAMERA.fullmatch(text)
    if camera and not (text.isdecimal() and Path(text).exists()):
        from streamer.client.camera import Camera  # noqa: PLC0415 - OpenCV, only for cameras

        return Camera(int(camera.group(1)), reconnect=options.reconnect, on_trouble=options.on_trouble)
    if "://" in text:
        return _open_address(text, options)
    path = Path(text)
    if text == SAMPLE and not path.exists():  # a file or folder of that name has precedence
        path = SAMPLE_FILE
    if path.is_dir() or (path.is_file() and path.suffix.lower() in SUFFIXES):
        return ImageFiles(path, fps=options.fps, loop=options.loop)
    if path.is_file():
        from streamer.client.video import VideoFile  # noqa: PLC0415 - PyAV, only for videos

        return VideoFile(str(path), loop=options.loop)
    if path.exists():
        raise SourceFailed(f"{text}: is neither a file nor a folder")
    raise BadInput(
        f"source {text!r} does not exist; give `{SAMPLE}`, a camera number, a video file, an image or folder "
        f"of images, or an address ({', '.join(f'{scheme}://' for scheme in SCHEMES[:4])})"
    )


def _open_address(text: str, options: SourceOptions) -> Source:
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise BadInput(f"source {redact(text)!r}: allowed are {', '.join(f'{s}://' for s in SCHEMES)}")
    from streamer.client.video import LiveVideo, VideoFile, has_length  # noqa: PLC0415 - loads PyAV

    if scheme in ("http", "https") and has_length(text):
        return VideoFile(text, loop=options.loop)
    return LiveVideo(text, reconnect=options.reconnect, on_trouble=options.on_trouble)
