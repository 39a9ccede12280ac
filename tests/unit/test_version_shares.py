"""Shares that were set at run time survive a restart under the same settings, and only whole ones count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from inference.ipc.shared_status import SharedStatus
from streamer.supervisor.version_shares import VersionShares
from streamer.versions.errors import ChangeRefused


class Memory:
    """Keeps fields in a map; ``refuses`` stands for another change that is in progress."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self.refuses = False

    async def remember(self, name: str, value: Any, what: str, request: Mapping[str, Any]) -> bool:
        if self.refuses:
            raise ChangeRefused("change_in_progress", "another change is in progress", conflict=True)
        self.fields[name] = value
        return True


def shares(memory: Memory, **configured: float) -> tuple[VersionShares, SharedStatus]:
    status = SharedStatus()
    made = VersionShares(status, {"split_v2": 0.0, "shadow_v2": 0.5} | configured, memory)
    made.restore(memory.fields)
    return made, status


def read(status: SharedStatus) -> tuple[float, float]:
    return status.read("split_v2"), status.read("shadow_v2")


async def test_a_share_is_set_and_survives_a_restart() -> None:
    memory = Memory()
    made, status = shares(memory)
    assert read(status) == (0.0, 0.5)
    assert await made.set({"name": "split_v2", "value": 0.1}) == {"kept": True}
    assert read(status) == (0.1, 0.5)
    assert read(shares(memory)[1]) == (0.1, 0.5)


async def test_a_changed_setting_wins_over_the_stored_share() -> None:
    memory = Memory()
    await shares(memory)[0].set({"name": "split_v2", "value": 0.1})
    assert read(shares(memory, split_v2=0.2)[1]) == (0.2, 0.5)


async def test_a_refused_change_changes_nothing() -> None:
    memory = Memory()
    made, status = shares(memory)
    memory.refuses = True
    with pytest.raises(ChangeRefused, match="in progress"):
        await made.set({"name": "split_v2", "value": 0.1})
    for name, value in (("split_v2", 2), ("split_v2", "1"), ("split_v2", float("nan")), ("workers", 0.5)):
        with pytest.raises(ChangeRefused, match="cannot be"):
            await made.set({"name": name, "value": value})
    assert read(status) == (0.0, 0.5)


@pytest.mark.parametrize("entry", [None, 1, {}, {"value": 2, "setting": 0.0}, {"value": "x", "setting": 0.0}])
def test_a_damaged_entry_is_ignored(entry: Any) -> None:
    memory = Memory()
    memory.fields["split_v2"] = entry
    assert read(shares(memory)[1]) == (0.0, 0.5)
