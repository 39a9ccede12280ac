"""Checks addresses from which models are downloaded, and defines the errors of `streamer models`."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit


class ModelFileError(Exception):
    """Base class of the errors of `streamer models`, except those that `inference` raises."""


class BadRequest(ModelFileError):
    """An option, name, folder or registry is wrong; the text says what was found and what is allowed."""


class NotTrusted(ModelFileError):
    """No checksum of the file is known and `--trust` was not given, or two known checksums differ."""


class PullFailed(ModelFileError):
    """The server cannot be reached, refuses, or stops sending. The next call resumes the download."""


class Interrupted(Exception):
    """An attempt ended early, and another one may succeed; the text says why."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        #: Delay that the server asked for, seconds; None if it did not.
        self.retry_after_s = retry_after_s


class WrongFile(ModelFileError):
    """The download is not the file that the registry describes. Nothing was installed."""


class CannotWrite(ModelFileError):
    """A file cannot be written: no space, no permission, or another file has its name."""


class Unavailable(ModelFileError):
    """A required package or device is missing; the text says how to get it."""


MAX_CHARS = 2000


def check_url(url: object) -> str:
    """Return the URL. Raises ValueError, whose text says what is allowed and continues "expected … to be"."""
    allowed = (
        "an https:// address without user and password (http:// is allowed on this machine's own addresses)"
    )
    if not isinstance(url, str) or len(url) > MAX_CHARS or not url.isascii() or not url.isprintable():
        raise ValueError(allowed)
    parts = _split(url)
    if parts is None or not parts.hostname or " " in url or parts.username or parts.password:
        raise ValueError(allowed)
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise ValueError(allowed)
    return url


def redirect_allowed(source: str, target: str) -> bool:
    """Return whether ``target`` is an allowed URL, and uses https if ``source`` does."""
    try:
        check_url(target)
    except ValueError:
        return False
    return not (source.startswith("https:") and not target.startswith("https:"))


def same_origin(one: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    return origin_of(one).lower() == origin_of(other).lower()


def is_loopback(host: str) -> bool:
    """Return whether a host name means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """Return scheme, host and port for messages, because the rest of a URL may contain a signature."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return "an address that cannot be parsed"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError if the port is not valid
    except ValueError:
        return None
    return parts
