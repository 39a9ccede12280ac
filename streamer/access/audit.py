"""The audit trail: one line for each action that changes the service for everybody, or was refused to.

Lines name the key and never hold it. They are written whatever `LOG_LEVEL` says.
"""

from __future__ import annotations

import logging

log = logging.getLogger("streamer.audit")
log.setLevel(logging.INFO)
#: Limited to one line a second for each client and action: anybody can be refused, as often as they like.
refusals = logging.getLogger("streamer.audit.refused")


def audit(action: str, **details: str | int) -> None:
    """Write one line, with the details as members of the JSON object."""
    log.info("audit: %s", action, extra={"action": action, **details})


def audit_refusal(action: str, key: str, status: int, request_id: str) -> None:
    """Write down that a client may not do something; ``key`` is the name of its key, or its address."""
    # The limit goes by the text: with the client in it, one that is loud hides no other.
    text = f"audit: {key} was refused {action}".replace("%", "%%")
    details = {"action": action, "key": key, "status": status, "request_id": request_id}
    refusals.info(text, extra=details)
