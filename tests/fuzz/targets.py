"""Holds all fuzz targets by name."""

from __future__ import annotations

from tests.fuzz import access_targets, file_targets, ipc_targets, media_targets, protocol_targets
from tests.fuzz.target import Target

ALL: dict[str, Target] = {
    target.name: target
    for module in (media_targets, protocol_targets, access_targets, ipc_targets, file_targets)
    for target in module.TARGETS
}
