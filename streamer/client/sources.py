"""Opens what a SOURCE argument names: a camera, a file, a folder or an address. Reads image files itself."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from streamer.assets import SAMPLE_FILE
from streamer.client.capture import Captured, Source
from streamer.client.errors import BadInput, SourceFailed
from streamer.core.backoff import Backoff
from streamer.core.redact import MASK, redact

#: Image formats that the client decodes. The first seven are sent as they are.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".bmp", ".tif", ".tiff")
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
#: SOURCE argument for the sample clip that comes with the project.
SAMPLE = "sample"
_CAMERA_NUMBER = re.compile(r"\d{1,3}")
#: Device paths of cameras. Links below v4l/by-id name the camera wherever it is plugged in; those below
#: v4l/by-path name the port.
_CAMERA_PATH = re.compile(r"/dev/(video\d{1,3}|v4l/by-(id|path)/.+)")


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How to read a source."""

    fps: float | None = None
    loop: bool = False
    reconnect: bool = True
    on_trouble: Callable[[str], None] | None = None
    #: Width and height to request from a local camera; None lets the camera choose.
    size: tuple[int, int] | None = None
    #: Pixel format to request from a local camera, such as ``MJPG``; empty lets the client choose one.
    fourcc: str = ""


def is_image_source(text: str) -> bool:
    """Whether SOURCE names image files. `push` sends all frames of such a source by default."""
    path = Path(text)
    return "://" not in text and (path.is_dir() or path.suffix.lower() in SUFFIXES)


def camera_of(text: str) -> int | str | None:
    """Return the number or path of the local camera that SOURCE names; None if it names something else."""
    if _CAMERA_NUMBER.fullmatch(text):
        return None if Path(text).exists() else int(text)
    if _CAMERA_PATH.fullmatch(text):
        return text
    path = Path(text)
    # A custom link to a camera, such as a udev rule creates.
    is_link = path.is_symlink() and _CAMERA_PATH.fullmatch(str(path.resolve()))
    return str(path.absolute()) if is_link else None


class SourceOpener:
    """Opens a source as :func:`open_source` does, and tries again while it may become available."""

    def __init__(self, text: str, options: SourceOptions) -> None:
        self._text = text
        self._options = options
        self._backoff = Backoff()
        #: When the next attempt is due, in monotonic seconds.
        self._due = 0.0

    def attempt(self) -> Source | None:
        """Open the source; if it may become available later, report why it cannot be opened, and return None.

        Raises BadInput or SourceFailed when another attempt would not help, and SourceFailed also when the
        options say not to reconnect.
        """
        try:
            return open_source(self._text, self._options)
        except SourceFailed as error:
            if not (error.temporary and self._options.reconnect):
                raise
            delay_s = self._backoff.next_s()
            self._due = time.monotonic() + delay_s
            if self._options.on_trouble is not None:
                self._options.on_trouble(f"{error}; next try in {delay_s:.1f} s")
            return None

    def open(self, stop: threading.Event) -> Source | None:
        """Repeat attempts, with back-off, until the source is open; return None after ``stop``."""
        while not stop.wait(max(0.0, self._due - time.monotonic())):
            if (source := self.attempt()) is not None:
                return source
        return None


#: Schemes whose addresses may leave out the host: they then listen on all addresses.
_HOST_OPTIONAL = ("udp", "tcp", "srt")
_ALLOWED = (
    f"give `{SAMPLE}`, a camera (0, /dev/video0), a video file, an image or folder of images, or an address "
    f"({', '.join(f'{scheme}://' for scheme in SCHEMES[:4])})"
)


def open_source(text: str, options: SourceOptions | None = None) -> Source:
    """Open the source that ``text`` names. Blocks up to 10 s for a network stream.

    Raises BadInput when there is no such source, SourceFailed when it cannot be opened.
    """
    options = options or SourceOptions()
    if not text.strip():  # as a path, it would be the current folder
        raise BadInput(f"the source is empty; {_ALLOWED}")
    device = camera_of(text)
    if device is not None:
        from streamer.client.camera import Camera, CameraMode  # noqa: PLC0415 - OpenCV, only for cameras

        mode = CameraMode(options.size, options.fps, options.fourcc)
        return Camera(device, mode, reconnect=options.reconnect, on_trouble=options.on_trouble)
    if options.size or options.fourcc:
        raise BadInput(f"--size and --fourcc are for local cameras, and {redact(text)} is none")
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
    raise BadInput(f"source {text!r} does not exist; {_ALLOWED}")


def _open_address(text: str, options: SourceOptions) -> Source:
    """Open an address and pass on the open container, because some cameras serve one client at a time."""
    scheme = text.partition("://")[0].lower()
    if scheme not in SCHEMES:
        raise BadInput(f"source {redact(text)!r}: allowed are {', '.join(f'{s}://' for s in SCHEMES)}")
    check_credentials(text)
    _check_host(text)
    from streamer.client import video  # noqa: PLC0415 - loads PyAV

    container = video.open_container(text)
    if scheme in ("http", "https"):
        if video.is_still(container):
            container.close()
            from streamer.client.snapshots import Snapshots  # noqa: PLC0415 - loads aiohttp

            return Snapshots(
                text, fps=options.fps, reconnect=options.reconnect, on_trouble=options.on_trouble
            )
        if video.has_length(container):
            return video.VideoFile(text, loop=options.loop, container=container)
    return video.LiveVideo(
        text, reconnect=options.reconnect, on_trouble=options.on_trouble, container=container
    )


def _check_host(address: str) -> None:
    """Raise BadInput for an address without a host, for which FFmpeg takes this machine, or a wrong port."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadInput(f"source {redact(address)} is no address: {error}") from None
    if not host and parts.scheme not in _HOST_OPTIONAL:
        raise BadInput(f"source {redact(address)} has no host")


#: Characters that end an address in a text, besides spaces.
_ENDS = "'\"\\[]"


def check_credentials(address: str) -> None:
    """Refuse an address whose password has characters that separate the parts of an address.

    The client would have to guess whether they belong to the password. Raises BadInput, whose message says
    how to write them and does not show the password.
    """
    scheme, _, rest = address.partition("://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    after = rest[len(authority) :]
    user, _, password = authority.rpartition("@")[0].partition(":")
    both = user + password
    found = [sign for sign, text in (("@", both), (":", password)) if sign in text]
    # `redact` takes spaces and quotation marks for the end of an address, so that it would show the rest.
    ends = sorted({sign for sign in both if sign.isspace() or sign in _ENDS})
    found += ends
    if re.search(r"%(?![0-9A-Fa-f]{2})", both):
        found.append("%")
    # The text after the last colon is a port, unless a character of the password has split the address there.
    _, colon, port = authority.rpartition("@")[2].rpartition(":")
    is_port = not colon or port.isdecimal() or authority.endswith("]")
    if "@" in after and (not is_port or (after[0] == "#" and ":" in authority)):
        found.append(after[0])
    if found:
        signs = " and ".join(f"`{sign}`" for sign in found)
        ways = ", ".join(
            f"`{sign}` as `{quote(sign, safe='')}`" for sign in ["@", ":", "#", "/", "?", "%", *ends]
        )
        # Show nothing before the last `@`, because the password may be anywhere in that part.
        raise BadInput(
            f"source {redact(f'{scheme}://{MASK}@' + rest.rpartition('@')[2])}: the user name or password "
            f"contains {signs} as it is, which separates the parts of an address; write {ways}"
        )
