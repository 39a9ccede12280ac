"""Changes the shares of v2 at run time, of clients and of shadow runs, and keeps them across restarts.

They are in the state file of the versions. A share counts only while the setting is the one under which it
was stored: who changes `SPLIT_V2` means the new value.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from inference.ipc.shared_status import SharedStatus
from streamer.versions.errors import ChangeRefused

log = logging.getLogger("streamer.supervisor")

#: Shares by the name of their setting and of their field in the shared status.
SHARES = ("split_v2", "shadow_v2")


class Memory(Protocol):
    """Keeps fields in the state file."""

    async def remember(self, name: str, value: Any, what: str, request: Mapping[str, Any]) -> bool:
        """Keep a field; return whether it survives a restart. Raises ChangeRefused."""


class VersionShares:
    """Holds the shares for all workers, in the shared status. ``configured`` has those of the settings."""

    def __init__(self, shared_status: SharedStatus, configured: Mapping[str, float], memory: Memory) -> None:
        self._shared_status = shared_status
        self._configured = configured
        self._memory = memory

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Set the shares of a start: the stored ones, else those of the settings."""
        for name, configured in self._configured.items():
            share = _stored_share(stored.get(name), configured)
            if share is not None:
                log.info("%s is %g, as it was set at run time before the restart", name.upper(), share)
            self._shared_status.post(name, configured if share is None else share)

    async def set(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change a share: the verb `share` with ``name`` and ``value``. Raises ChangeRefused."""
        name, value = request["name"], request["value"]
        if name not in self._configured or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ChangeRefused("bad_share", f"{name!r:.40} cannot be {value!r:.40}")
        entry = {"value": float(value), "setting": self._configured[name]}
        kept = await self._memory.remember(name, entry, f"{name.upper()} is {value:g}", request)
        self._shared_status.post(name, float(value))
        return {"kept": kept}


def _stored_share(entry: Any, configured: float) -> float | None:
    """Return the share of an entry that was stored under the present setting; None for any other."""
    if not isinstance(entry, Mapping) or entry.get("setting") != configured:
        return None
    value = entry.get("value")
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1 else None
