"""Defines where a model file comes from: an address, and what each attempt to download it must send."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from multidict import CIMultiDictProxy

#: Hints for a known model, by HTTP status; its registry entry has a page of the publisher.
_KNOWN_MODEL: Mapping[int, str] = {
    401: "it asks for a login, which an official release does not",
    403: "it denies the file to this address or network",
    404: "the file does not exist (any more): see the entry's `source` page",
    410: "the file was removed: see the entry's `source` page",
}
#: Hints for an address that the caller gave.
_ADDRESS: Mapping[int, str] = {
    401: "it asks for a login: write one for this host into .netrc (the variable NETRC names the file)",
    403: "it denies the file to this address, network or login",
    404: "the file does not exist",
    410: "the file was removed",
}


@dataclass(frozen=True, slots=True)
class FileRequest:
    """What one attempt requests."""

    #: Address, whose query may hold a signature; it must not be shown or stored.
    url: str
    #: Headers for the host of ``url`` alone: a host to which it redirects does not get them.
    headers: Mapping[str, str] = field(default_factory=dict)


class Origin(Protocol):
    """Makes the requests for one file, and explains why a server refuses them."""

    @property
    def identity(self) -> str:
        """Identifies the file in the note of a partial download. It holds no signature or credential."""

    @property
    def uses_netrc(self) -> bool:
        """Whether credentials come from .netrc; otherwise `FileRequest` has all of them."""

    async def request(self, session: aiohttp.ClientSession) -> FileRequest:
        """Return the request of the next attempt. Raises Interrupted or PullFailed."""

    def rejection(self, status: int, headers: CIMultiDictProxy[str], body: str) -> Exception | str:
        """Return what to raise for a status that is no success, or a hint for the message; it may be empty.

        ``body`` is the beginning of the answer.
        """


class HttpOrigin:
    """A file at an ``https`` address, or on this machine an ``http`` one."""

    uses_netrc = True

    def __init__(self, url: str, *, is_known_model: bool) -> None:
        self._url = url
        self._hints = _KNOWN_MODEL if is_known_model else _ADDRESS
        #: The address, with a digest in place of its query, which may hold a signature.
        self.identity = _identity(url)

    async def request(self, session: aiohttp.ClientSession) -> FileRequest:
        """Return the address itself."""
        return FileRequest(self._url)

    def rejection(self, status: int, headers: CIMultiDictProxy[str], body: str) -> str:
        """Return a hint for the status."""
        return self._hints.get(status, "")


def _identity(url: str) -> str:
    query = urlsplit(url).query
    return without_query(url) + (f"?{hashlib.sha256(query.encode()).hexdigest()[:16]}" if query else "")


def without_query(url: str) -> str:
    """Return an address without its query and fragment."""
    return urlunsplit((*urlsplit(url)[:3], "", ""))
