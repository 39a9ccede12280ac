"""STUN and TURN servers, from configuration only, and short-lived credentials for them. Pure.

Credentials follow draft-uberti-behave-turn-rest: the user name is the expiry time, the password its MAC.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

_URL = re.compile(
    r"(?:(?:stun|stuns):[A-Za-z0-9.-]+|(?:turn|turns):[A-Za-z0-9.-]+)(?::\d{1,5})?(?:\?transport=(?:udp|tcp))?"
)


def parse_ice_servers(text: str) -> tuple[str, ...]:
    """Return the URLs of a comma-separated list. Raises ValueError, which names the invalid one."""
    urls = tuple(url.strip() for url in text.split(",") if url.strip())
    for url in urls:
        if "@" in url:
            raise ValueError(
                f"the ICE server {url.rpartition('@')[2]!r} has a user; the service makes credentials "
                "from TURN_SECRET, and allowed are stun:HOST[:PORT] and turn:HOST[:PORT][?transport=udp|tcp]"
            )
        if not _URL.fullmatch(url) or (url.startswith("stun") and "?" in url):
            raise ValueError(
                f"{url!r} is not an ICE server; allowed are stun:HOST[:PORT] and "
                "turn:HOST[:PORT][?transport=udp|tcp] (or stuns, turns), separated by commas"
            )
    return urls


class IceServer(TypedDict):
    """One entry of `iceServers` of an `RTCPeerConnection`."""

    urls: Annotated[list[str], Field(description="Addresses of STUN servers, or of TURN servers.")]
    username: NotRequired[Annotated[str, Field(description="User name for the TURN servers; it expires.")]]
    credential: NotRequired[Annotated[str, Field(description="Password for the TURN servers.")]]


@dataclass(frozen=True, slots=True)
class IceServers:
    """ICE servers for clients, and for the service itself."""

    urls: tuple[str, ...] = ()
    #: Secret shared with the TURN servers; if empty, clients get no TURN servers, which they could not use.
    turn_secret: str = ""
    turn_ttl_s: int = 3600

    @property
    def stun_urls(self) -> tuple[str, ...]:
        """STUN servers that the service asks for its own address; it needs no TURN relay itself."""
        return tuple(url for url in self.urls if url.startswith("stun:"))

    def describe(self, user: str, now_s: float) -> list[IceServer]:
        """Return the servers as `RTCPeerConnection` takes them; ``now_s`` is Unix time."""
        stun = [url for url in self.urls if url.startswith("stun")]
        turn = [url for url in self.urls if url.startswith("turn")]
        servers: list[IceServer] = [{"urls": stun}] if stun else []
        if turn and self.turn_secret:
            name = f"{int(now_s) + self.turn_ttl_s}:{user}"
            servers.append({"urls": turn, "username": name, "credential": self._password(name)})
        return servers

    def links(self, user: str, now_s: float) -> list[str]:
        """Return them as values of `Link` headers (RFC 9725 section 4.6)."""
        links = []
        for server in self.describe(user, now_s):
            credentials = ""
            if "username" in server:
                credentials = (
                    f'; username="{server["username"]}"; credential="{server["credential"]}"; '
                    'credential-type="password"'
                )
            links += [f'<{url}>; rel="ice-server"{credentials}' for url in server["urls"]]
        return links

    def _password(self, name: str) -> str:
        digest = hmac.new(self.turn_secret.encode(), name.encode(), hashlib.sha1).digest()
        return base64.b64encode(digest).decode()
