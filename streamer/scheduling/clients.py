"""Keeps the clients of a worker: their quotas, their weights and what they have used.

Each worker counts quotas by itself, so a client whose connections reach several workers gets its quota once
per worker. The client's share of the device, however, applies to all workers together.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Protocol

from streamer.core.token_bucket import TokenBucket
from streamer.scheduling.decode_cost import LastHint

#: Factor by which `cost_factor` decays with each image that costs what was expected.
_COST_FACTOR_DECAY = 0.9
#: Upper bound of `cost_factor`.
_MAX_COST_FACTOR = 1000.0


@dataclass(slots=True, eq=False)
class Client:
    """Holds the state of one client: an API key, or an address if there are no keys."""

    name: str
    #: Identifies the client in all workers; 32 bits.
    number: int = 0
    weight: float = 1.0
    #: Factor by which its images cost more to decode than others of their size and kind; 1 or more.
    cost_factor: float = 1.0
    #: Expected decode time of its latest posted image, in milliseconds.
    post_ms: float = 0.0
    #: Estimates the kind of the client's posted images from their first bytes.
    hint: LastHint = field(default_factory=LastHint)
    #: Decode time of a frame of its streams, in milliseconds; 0 until one was decoded.
    frame_ms: float = 0.0
    #: Number of WebSocket connections that are open in this worker, and the largest number allowed.
    streams: int = 0
    most_streams: int | None = None
    #: Quotas from which the token buckets below were made.
    quotas: object = None
    #: Buckets for POSTs and for bytes of images; None means no limit.
    requests: TokenBucket | None = None
    image_bytes: TokenBucket | None = None
    #: Buckets that limit how fast `streams` and `sessions` are opened; no entry means no limit.
    openings: dict[str, TokenBucket] = field(default_factory=dict)

    def learn_cost_factor(self, expected_ms: float, actual_ms: float) -> None:
        """Raise `cost_factor` when an image cost more than its size suggested; otherwise let it decay."""
        ratio = actual_ms / max(expected_ms / self.cost_factor, 0.1)
        self.cost_factor = min(_MAX_COST_FACTOR, max(1.0, ratio, self.cost_factor * _COST_FACTOR_DECAY))


#: The client that is charged for work that no client requested.
NOBODY = Client("")


# Nobody changes an instance, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class Caller:
    """Holds the sender of a POST: the client that is charged, and a number for its connection."""

    client: Client = NOBODY
    connection: int = 0
    #: Whether its images may wait until their deadline, as do the images of a request that has several.
    may_wait_long: bool = False


#: Number of clients that are remembered. Beyond it, the least recently seen client with no open stream is
#: forgotten.
MAX_CLIENTS = 4096
#: Largest weight that is used; its inverse is the smallest.
MAX_WEIGHT = 1000.0
#: Number of least recently seen clients that are examined to find one to forget.
_EXAMINED = 8
#: Size of a token bucket, in seconds of its rate: a client that was idle before may use this much at once.
_BURST_S = 2.0
#: Seconds in which a client may open as many streams or sessions as it may have open.
_OPENINGS_S = 5.0


class Quotas(Protocol):
    """Holds the quotas of one client; None means no limit. `streamer.access.identity` has the values."""

    @property
    def requests_per_s(self) -> float | None:
        """POSTs per second."""

    @property
    def streams(self) -> int | None:
        """Largest number of open WebSocket connections."""

    @property
    def sessions(self) -> int | None:
        """Largest number of open WebRTC and WHIP sessions."""

    @property
    def bytes_per_s(self) -> float | None:
        """Bytes of posted images per second."""

    @property
    def weight(self) -> float:
        """Weight of the client's share relative to other clients."""


class Identity(Protocol):
    """Identifies a client and holds its quotas."""

    @property
    def name(self) -> str:
        """Name of its API key, or its address."""

    @property
    def quotas(self) -> Quotas:
        """Quotas of this identity."""


class Clients:
    """Maps each identity to its one `Client`. ``secret`` is the same in all workers; no client knows it."""

    def __init__(self, secret: str) -> None:
        self._secret = hashlib.blake2b(secret.encode()).digest()
        self._clients: OrderedDict[str, Client] = OrderedDict()

    def __len__(self) -> int:
        return len(self._clients)

    def of(self, identity: Identity, now: float) -> Client:
        """Return the client of this identity; create it if it is new."""
        client = self._clients.get(identity.name)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS:
                self._forget_one()
            # The hash has a secret key: otherwise a client could choose an address that gets the number of
            # another client.
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
    """Replace the client's quotas, for example after a change of the key file; its streams stay open."""
    client.weight = min(MAX_WEIGHT, max(1 / MAX_WEIGHT, quotas.weight))
    client.requests = _rate(quotas.requests_per_s, now)
    client.image_bytes = _rate(quotas.bytes_per_s, now)
    limits = {"streams": quotas.streams, "sessions": quotas.sessions}
    client.most_streams = quotas.streams
    client.openings = {
        kind: TokenBucket(most / _OPENINGS_S, 2.0 * most, now) for kind, most in limits.items() if most
    }


def _rate(per_s: float | None, now: float) -> TokenBucket | None:
    """Return a token bucket for this rate; None if there is no limit."""
    return None if per_s is None else TokenBucket(per_s, max(1.0, per_s * _BURST_S), now)
