"""Who a client is: the name of its key, what it may do, and how much of it. Pure; `gate` makes identities."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """What a key may be used for."""

    #: Images by POST.
    PREDICT = "predict"
    #: Live frames and video: WebSocket, WebRTC, WHIP, and the tickets that open them.
    STREAM = "stream"
    #: What changes the service for everybody, or shows names of other clients' streams.
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)
#: Before the subject of a token in the name of its holder; names of keys have no colon.
TOKEN_NAME_PREFIX = "jwt:"  # noqa: S105 - a prefix


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much one client may ask for; None leaves it to the service's own limits."""

    requests_per_s: float | None = None
    #: WebSocket connections at a time.
    streams: int | None = None
    #: WebRTC and WHIP sessions at a time.
    sessions: int | None = None
    bytes_per_s: float | None = None
    #: Share of the device beside other clients, relative to their weights.
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """A client as the service knows it."""

    #: The key's name, or `addr:<client address>` for clients without a key.
    name: str
    scopes: frozenset[Scope]
    quotas: Quotas = field(default_factory=Quotas)
    #: Whether the client has shown no key.
    anonymous: bool = False
    #: Unix seconds until which the key is good; None: as long as it is there.
    until: float | None = None
    #: Which key of the file the client has shown: the first digits of its digest; empty for all others.
    key: str = ""

    def is_current(self, now: float) -> bool:
        """Whether the key has not expired at ``now``, Unix seconds."""
        return self.until is None or now < self.until

    @property
    def owner(self) -> str:
        """Who owns the sessions that this client makes; empty for clients without a key.

        Clients without a key share one owner, because their addresses change while a session lives: there
        the id of a session, which cannot be guessed, is what gives access to it.
        """
        return "" if self.anonymous else self.name

    def may(self, scope: Scope) -> bool:
        """Whether the client may do what needs ``scope``."""
        return scope in self.scopes
