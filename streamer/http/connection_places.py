"""Decides which connections a worker keeps when file descriptors run short. Pure: without clock and socket.

A connection is idle before its first request and between two requests. A new connection replaces the one
that has been idle for longest, so silent clients can neither use up the descriptors nor keep a probe out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Connections that are accepted beyond the limit; they are answered only if they are probes.
PROBE_PLACES = 16
#: A new connection is not closed before it had this time to send the first bytes of its request.
FIRST_REQUEST_S = 0.05
#: A connection is not closed within this time after a request, because its answer is still being written.
AFTER_ANSWER_S = 0.2
#: Share of all connections that one address may hold. A proxy in front of the service is one address.
ADDRESS_SHARE = 0.75
_LOOKED_AT = 8


@dataclass(slots=True, eq=False)
class Guest:
    """One connection. Times are in seconds of the caller's clock."""

    network: str
    #: Time at which it became idle.
    idle_since: float
    #: Whether it has made a request.
    heard: bool = False
    #: Closes the connection; None until it has a transport.
    cut: Callable[[], None] | None = None


class ConnectionPlaces:
    """Tracks the connections of one worker: at most ``total``, and at most ``per_network`` of one network."""

    def __init__(self, total: int, per_network: int) -> None:
        self.total = total
        self.per_network = per_network
        self._guests: dict[str, set[Guest]] = {}
        self._count = 0
        #: The idle connections, starting with the one that has been idle for longest.
        self._idle: OrderedDict[Guest, None] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether a new connection needs the place of another one."""
        return self._count >= self.total

    @property
    def over(self) -> bool:
        """Whether there are more connections than allowed, so that only probes are answered."""
        return self._count > self.total

    def enter(self, address: str, now: float) -> Guest | None:
        """Admit a new connection, for which an idle one may be closed; returns None to refuse it."""
        network = network_of(address)
        same = self._guests.get(network, ())
        if len(same) >= self.per_network and not self._cut_one(now, network):
            return None
        if self.full and not self._cut_one(now) and self._count >= self.total + PROBE_PLACES:
            return None
        guest = Guest(network, now)
        self._guests.setdefault(network, set()).add(guest)
        self._count += 1
        self._idle[guest] = None
        return guest

    def leave(self, guest: Guest) -> None:
        """Remove a connection that has ended; further calls for it do nothing."""
        same = self._guests.get(guest.network)
        if same is None or guest not in same:
            return
        same.remove(guest)
        if not same:
            del self._guests[guest.network]
        self._count -= 1
        self._idle.pop(guest, None)

    def begin(self, guest: Guest) -> None:
        """Note that a request of this connection is being answered."""
        self._idle.pop(guest, None)
        guest.heard = True

    def end(self, guest: Guest, now: float) -> None:
        """Note that the request is answered and the connection is idle again."""
        if guest in self._guests.get(guest.network, ()):
            guest.idle_since = now
            self._idle[guest] = None

    def _cut_one(self, now: float, network: str | None = None) -> bool:
        """Close the connection that has been idle for longest; returns False if none was idle long enough."""
        looked_at = 0
        for guest in self._idle:
            if network is not None and guest.network != network:
                continue
            idle_s = now - guest.idle_since
            if guest.cut is not None and idle_s >= (AFTER_ANSWER_S if guest.heard else FIRST_REQUEST_S):
                cut = guest.cut
                self.leave(guest)
                cut()
                return True
            looked_at += 1
            if looked_at == _LOOKED_AT:
                break
        return False


def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
