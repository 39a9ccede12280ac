"""Finds the replicas of a release, each of which has a short name and an address, for `session_router`.

A name is a digest of an address. A client can therefore choose only among the configured addresses, and
cannot make the service connect to another one.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

log = logging.getLogger("streamer.replicas")

#: Header of answers that names the replica.
REPLICA_HEADER = "X-Replica"
#: Header that marks a forwarded request; a replica does not forward such a request again.
HOP_HEADER = "X-Replica-Hop"
NAME_LENGTH = 8

#: Age of the known addresses at which they are looked up again.
FRESH_S = 10.0
#: Shortest interval between look-ups, so that requests with unknown names do not cause a flood of look-ups.
LOOK_UP_EVERY_S = 1.0
LOOK_UP_TIMEOUT_S = 2.0

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\.?")


@dataclass(frozen=True, slots=True)
class Address:
    """Address of a replica; ``host`` is an IP address or a DNS name."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Base URL of the replica."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """Short name of the replica at this IP address; all replicas compute the same name."""
        text = f"{ipaddress.ip_address(self.host)} {self.port}"
        return hashlib.sha256(text.encode()).hexdigest()[:NAME_LENGTH]


def parse_address(text: str, default_port: int) -> Address:
    """Read `10.1.2.3`, `10.1.2.3:8000`, `fd00::5`, `[fd00::5]:8000`, `app-peers` or `app-peers:8000`.

    Raises ValueError that says what is allowed.
    """
    text = text.strip()
    try:
        return Address(str(ipaddress.ip_address(text)), default_port)
    except ValueError:
        pass
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = text, str(default_port)
    if host.startswith("[") and host.endswith("]"):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError(f"{text!r} is not an address; allowed are HOST and HOST:PORT") from None
    elif _HOST.fullmatch(host) is None:
        raise ValueError(f"{text!r} is not an address; allowed are HOST and HOST:PORT")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r} has the port {port!r}; allowed are 1 to 65535")
    return Address(host, int(port))


def parse_peers(text: str, default_port: int) -> tuple[Address, ...]:
    """Read comma-separated addresses. Raises ValueError like :func:`parse_address`."""
    return tuple(parse_address(part, default_port) for part in text.split(",") if part.strip())


def parse_own(text: str, default_port: int) -> Address | None:
    """Read this replica's address, an IP address with an optional port; None if empty. Raises ValueError."""
    if not text:
        return None
    address = parse_address(text, default_port)
    try:
        ipaddress.ip_address(address.host)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address; allowed are IP and IP:PORT") from None
    return address


async def resolve(address: Address) -> list[Address]:
    """Return the IP addresses that a host name stands for. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    return [Address(str(entry[4][0]), address.port) for entry in found]


class Replicas:
    """Knows this replica's name, and finds the others by name. A single replica has no name."""

    def __init__(
        self,
        own: Address | None = None,
        peers: tuple[Address, ...] = (),
        look_up: Callable[[Address], Awaitable[list[Address]]] = resolve,
    ) -> None:
        self.name = own.name if own is not None else ""
        self._peers = peers
        self._look_up = look_up
        self._known: dict[str, Address] = {}
        self._looked_up_at = -FRESH_S
        self._lock = asyncio.Lock()

    async def find(self, name: str) -> Address | None:
        """Return the address of the replica with that name; None if no peer has it."""
        await self._update(lambda: name in self._known)
        return self._known.get(name)

    async def others(self) -> dict[str, Address]:
        """Return the addresses of the other replicas by their names."""
        await self._update(lambda: True)
        return {name: address for name, address in self._known.items() if name != self.name}

    async def has(self, host: str) -> bool:
        """Return whether a replica of this release has this IP address."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        text = str(address)
        await self._update(lambda: any(peer.host == text for peer in self._known.values()))
        return any(peer.host == text for peer in self._known.values())

    async def _update(self, is_known: Callable[[], bool]) -> None:
        """Look the peers up again if what is known is old, or does not contain what is wanted."""
        if not self._peers:
            return
        async with self._lock:
            age_s = time.monotonic() - self._looked_up_at
            if age_s >= FRESH_S or (age_s >= LOOK_UP_EVERY_S and not is_known()):
                await self._refresh()

    async def _refresh(self) -> None:
        """Look up all peers. If one cannot be resolved, keep the addresses that are already known."""
        found: dict[str, Address] = {}
        complete = True
        for peer in self._peers:
            try:
                async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                    found |= {address.name: address for address in await self._look_up(peer)}
            except (OSError, TimeoutError) as error:
                complete = False
                log.warning("replicas at %s cannot be looked up: %s", peer.host, error or "no answer")
        # Keep known replicas while a name server fails.
        self._known = found if complete else self._known | found
        self._looked_up_at = time.monotonic()
