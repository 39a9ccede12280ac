"""The clients that this worker has met, by name; what a quota allows each of them is counted here. Pure.

Quotas are counted in each worker: with several workers a client whose connections reach all of them gets as
many times its quota. Shares of the device are the same for a client in all workers together.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Protocol

from streamer.core.token_bucket import TokenBucket
from streamer.scheduling.client import Client

#: Clients remembered; beyond, the one that was seen longest ago and has nothing open is forgotten.
MAX_CLIENTS = 4096
#: The largest weight that counts, and the inverse of the smallest.
MAX_WEIGHT = 1000.0
#: Clients examined for one to forget.
_EXAMINED = 8
#: A rate may be exceeded for this long by a client that was below it before.
_BURST_S = 2.0
#: Time over which as many streams or sessions may be opened as may be open.
_OPENINGS_S = 5.0


class Quotas(Protocol):
    """How much one client may ask for; None is no limit. `streamer.access.identity` has the values."""

    @property
    def requests_per_s(self) -> float | None:
        """POSTs."""

    @property
    def streams(self) -> int | None:
        """WebSocket connections at a time."""

    @property
    def sessions(self) -> int | None:
        """WebRTC and WHIP sessions at a time."""

    @property
    def bytes_per_s(self) -> float | None:
        """Bytes of images."""

    @property
    def weight(self) -> float:
        """Share beside other clients."""


class Identity(Protocol):
    """Who a client is."""

    @property
    def name(self) -> str:
        """Name of its key, or its address."""

    @property
    def quotas(self) -> Quotas:
        """What it may ask for."""


class Clients:
    """Gives every identity its one `Client`. ``secret`` is the same in all workers; no client knows it."""

    def __init__(self, secret: str) -> None:
        self._secret = hashlib.blake2b(secret.encode()).digest()
        self._clients: OrderedDict[str, Client] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def of(self, identity: Identity, now: float) -> Client:
        """Return the client that an identity is."""
        client = self._clients.get(identity.name)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS:
                self._forget_one()
            # By a secret: nobody may choose an address that shares another client's number.
            digest = hashlib.blake2b(identity.name.encode(), digest_size=4, key=self._secret).digest()
            client = self._clients[identity.name] = Client(identity.name, int.from_bytes(digest, "little"))
        else:
            self._clients.move_to_end(identity.name)
        quotas = identity.quotas
        if client.quotas is not quotas and client.quotas != quotas:
            _apply(client, quotas, now)
        client.quotas = quotas
        return client

    def _forget_one(self) -> None:
        oldest = [client for _, client in zip(range(_EXAMINED), self._clients.values(), strict=False)]
        idle = next((client for client in oldest if not client.streams), oldest[0])
        del self._clients[idle.name]


def _apply(client: Client, quotas: Quotas, now: float) -> None:
    """Begin to count by other quotas, as when keys were replaced; what is open stays open."""
    client.weight = min(MAX_WEIGHT, max(1 / MAX_WEIGHT, quotas.weight))
    client.requests = _rate(quotas.requests_per_s, now)
    client.image_bytes = _rate(quotas.bytes_per_s, now)
    limits = {"streams": quotas.streams, "sessions": quotas.sessions}
    client.most_streams = quotas.streams
    client.openings = {
        kind: TokenBucket(most / _OPENINGS_S, 2.0 * most, now) for kind, most in limits.items() if most
    }


def _rate(per_s: float | None, now: float) -> TokenBucket | None:
    """Return a bucket of a rate; None where there is no limit."""
    return None if per_s is None else TokenBucket(per_s, max(1.0, per_s * _BURST_S), now)
