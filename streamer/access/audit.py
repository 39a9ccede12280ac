"""The audit trail: one log line for each administrative action, and for each refused one.

Lines contain the name of the key, never the key. They are written regardless of `LOG_LEVEL`.
"""

from __future__ import annotations

import logging

log = logging.getLogger("streamer.audit")
log.setLevel(logging.INFO)
#: Limited to one line per second for each client and action, because clients can cause refusals at any rate.
refusals = logging.getLogger("streamer.audit.refused")


def audit(action: str, **details: str | int) -> None:
    """Write one line; the details become members of the JSON object."""
    log.info("audit: %s", action, extra={"action": action, **details})


def audit_refusal(action: str, key: str, status: int, request_id: str) -> None:
    """Record that a client was refused an action; ``key`` is the name of its key, or its address."""
    # The limit applies to equal texts. The client is part of the text, so one client cannot hide others.
    text = f"audit: {key} was refused {action}".replace("%", "%%")
    details = {"action": action, "key": key, "status": status, "request_id": request_id}
    refusals.info(text, extra=details)
