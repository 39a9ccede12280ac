"""Defines the identity of a client (name, scopes, quotas), and writes the audit log.

Each administrative action gets an audit line with the name of the key, never the key. These lines are written
regardless of `LOG_LEVEL`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """Names the rights that a key can have."""

    #: Sending images by POST.
    PREDICT = "predict"
    #: Live frames and video: WebSocket, WebRTC, WHIP, and the tickets that open them.
    STREAM = "stream"
    #: Changes to the service, and views that contain names of other clients' streams.
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)
#: Prefix of the names of clients with tokens, before the subject; names of keys contain no colon.
TOKEN_NAME_PREFIX = "jwt:"  # noqa: S105 - a prefix


@dataclass(frozen=True, slots=True)
class Quotas:
    """Holds the limits of one client; where a value is None, only the limits of the service apply."""

    requests_per_s: float | None = None
    #: WebSocket connections at a time.
    streams: int | None = None
    #: WebRTC and WHIP sessions at a time.
    sessions: int | None = None
    bytes_per_s: float | None = None
    #: Share of the device, relative to the weights of other clients.
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Describes a client, as identified by its key, token, ticket or address."""

    #: The key's name, or `addr:<client address>` for clients without a key.
    name: str
    scopes: frozenset[Scope]
    quotas: Quotas = field(default_factory=Quotas)
    #: Whether the client sent no key.
    anonymous: bool = False
    #: Unix time at which the key expires; None if it does not.
    until: float | None = None
    #: First digits of the digest of the key, if it is from the key file; else empty.
    key: str = ""

    def is_current(self, now: float) -> bool:
        """Return whether the key has not yet expired at ``now``, in Unix seconds."""
        return self.until is None or now < self.until

    @property
    def owner(self) -> str:
        """Owner of the sessions that this client creates; empty for clients without a key.

        Clients without a key share one owner, because their addresses may change during a session. For them,
        the id of the session, which cannot be guessed, gives access to it.
        """
        return "" if self.anonymous else self.name

    def may(self, scope: Scope) -> bool:
        """Return whether the client has this scope."""
        return scope in self.scopes


log = logging.getLogger("streamer.audit")
log.setLevel(logging.INFO)
#: Limited to one line per second for each client and action, because clients can cause refusals at any rate.
refusals = logging.getLogger("streamer.audit.refused")


def audit(action: str, **details: str | int) -> None:
    """Write one line; the details become members of the JSON object."""
    log.info("audit: %s", action, extra={"action": action, **details})


def audit_refusal(action: str, key: str, status: int, request_id: str) -> None:
    """Record that a client was refused an action; ``key`` is the name of its key, or its address."""
    # The limit applies to equal texts. The text names the client, so clients cannot hide lines of others.
    text = f"audit: {key} was refused {action}".replace("%", "%%")
    details = {"action": action, "key": key, "status": status, "request_id": request_id}
    refusals.info(text, extra=details)
