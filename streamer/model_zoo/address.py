"""Which addresses models may come from: https, or http on this very machine. Pure."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

MAX_CHARS = 2000


def check_address(url: object) -> str:
    """Return the address. Raises ValueError with what is allowed, to go on after "to be"."""
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


def may_follow(here: str, there: str) -> bool:
    """Return whether a redirect from ``here`` to ``there`` keeps the protection that ``here`` had."""
    try:
        check_address(there)
    except ValueError:
        return False
    return not (here.startswith("https:") and not there.startswith("https:"))


def is_loopback(host: str) -> bool:
    """Return whether a host name means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """Return scheme, host and port, for messages: paths of file stores hold signatures."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        return "an address that cannot be read"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed at access
    except ValueError:
        return None
    return parts
