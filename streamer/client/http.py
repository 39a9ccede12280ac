"""Holds what all connections of the client share: version, cookies, and the reading of HTTP errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import aiohttp

_LONGEST_RETRY_AFTER_S = 300.0


def client_version() -> str:
    """Return the installed version of the project, or ``source`` when it runs from a source tree."""
    try:
        return version("real-time-vision-api")
    except PackageNotFoundError:
        return "source"


def cookies() -> aiohttp.CookieJar:
    """Return a cookie jar for one server. Needs a running event loop.

    A load balancer sets a cookie so that a client that reconnects reaches the same replica.
    """
    # By default aiohttp ignores cookies of a server that is addressed by IP.
    return aiohttp.CookieJar(unsafe=True)


def connect_error_text(error: aiohttp.ClientConnectorError) -> str:
    """Return the operating system's reason for a failed connect, without the address."""
    number = error.os_error.errno
    # Errors of name resolution have negative numbers, for which os.strerror has no text.
    return os.strerror(number) if number is not None and number > 0 else str(error.os_error.strerror)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in a ``Retry-After`` header, at most 300; None when it is absent or a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 9:
        return min(float(value), _LONGEST_RETRY_AFTER_S)
    return None
