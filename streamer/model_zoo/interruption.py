"""Why a try at a download ended early, and whether another may help: aiohttp's errors in people's words."""

from __future__ import annotations

import os
import ssl

import aiohttp

from streamer.model_zoo.amounts import size_text
from streamer.model_zoo.errors import PullFailed


class Interrupted(Exception):
    """The try ended early and another one may go on; says why, and when the server wants to be asked."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        #: The server's own statement of when to come back, seconds.
        self.retry_after_s = retry_after_s


def meaning_of(error: aiohttp.ClientError, done: int) -> Interrupted | PullFailed:
    """Return what a failed connection means after ``done`` bytes: PullFailed where no other try will help.

    The library's own texts name whole addresses, signatures included; these name hosts.
    """
    final = _final_reason(error)
    if final is not None:
        return PullFailed(final)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Interrupted(f"{error.host}:{error.port} cannot be reached: {_why(error.os_error)}")
    if isinstance(
        error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError
    ):
        return Interrupted(f"the connection was cut after {size_text(done)}")
    return Interrupted(f"the connection failed: {type(error).__name__}")


def _final_reason(error: aiohttp.ClientError) -> str | None:
    """Return what is wrong where it will stay wrong, or None."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return (
            f"{error.host}: the certificate is not trusted ({error.certificate_error}); behind a proxy that "
            "reads along, give its authority with --ca-file"
        )
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ssl.SSLError):
        return f"{error.host}: TLS fails: {error.os_error.reason}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refuses: {error.status} {error.message}"
    if isinstance(error, aiohttp.InvalidURL):
        return "an address cannot be read; look at the entry's `url` and at the proxy settings"
    return None


def _why(cause: OSError) -> str:
    # Name resolution has negative numbers of its own, and a text that fits.
    if cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno)
    return cause.strerror or "no such host"
