"""Parses and checks the handshake of the inference process, which workers do not trust.

The process runs native code on untrusted pixels. If an attacker controls what it sends, a worker must neither
reserve unlimited memory nor fail later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from inference.core.errors import WireError
from inference.ipc.ring import slot_bytes_for
from inference.models.model import ModelInfo

#: Limits far above what any device needs: `INFERENCE_LANES` and `BATCH_MAX` allow at most 64 each.
_MOST_THREADS = 1024
_MOST_PREFETCH = 4096
_LARGEST_BUCKET = 4096
_MOST_VERSIONS = 16
_LONGEST_SIDE_PX = 16_384
_MOST_LABELS = 65_536
#: Largest ring of a worker: an input of 1280 px takes 4.9 MB, and 128 of them keep any device busy.
_RING_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class AnnouncedVersion:
    """Holds what the inference process announced about one version."""

    version: str
    info: ModelInfo
    #: Maps each batch size to the milliseconds of one run.
    cost_ms: dict[int, float]


@dataclass(frozen=True, slots=True)
class Handshake:
    """Holds the served versions, and how many batches run and wait at a time."""

    versions: tuple[AnnouncedVersion, ...]
    #: Number of runs that execute in parallel.
    parallel: int
    inference_threads: int
    #: Number of batches in flight, running or waiting, that keep the device busy.
    prefetch_depth: int


def read_handshake(message: dict[str, Any]) -> Handshake:
    """Check the types and ranges of a handshake. Raises WireError for every fault."""
    try:
        return Handshake(
            tuple(_read_version(entry) for entry in _entries(message)),
            _number(message, "parallel", _MOST_THREADS),
            _number(message, "inference_threads", _MOST_THREADS),
            _number(message, "prefetch_depth", _MOST_PREFETCH),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise WireError(f"a handshake that does not parse: {error!r:.300}") from error


def ring_size(models: list[tuple[int, ModelInfo]], spare_slots: int) -> tuple[int, int]:
    """Return the number of slots and the bytes of a slot of a worker's ring.

    ``models`` holds the number of frames in flight and the model of each version. Raises WireError when the
    ring would be too large.
    """
    slots = sum(in_flight for in_flight, _ in models) + spare_slots
    slot_bytes = max(slot_bytes_for(info.input_width, info.input_height) for _, info in models)
    if slots * slot_bytes > _RING_BYTES:
        raise WireError(f"a ring of {slots} x {slot_bytes} bytes is asked for; at most {_RING_BYTES}")
    return slots, slot_bytes


def _entries(message: dict[str, Any]) -> list[dict[str, Any]]:
    entries = message["versions"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST_VERSIONS:
        raise TypeError(f"`versions` is a list of 1 to {_MOST_VERSIONS}")
    return entries


def _number(message: dict[str, Any], name: str, most: int) -> int:
    value = message[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"`{name}` is {value!r:.40}; allowed are 1 to {most}")
    return value


def _read_version(entry: dict[str, Any]) -> AnnouncedVersion:
    version = entry["version"]
    if not isinstance(version, str) or not version:
        raise TypeError("`version` is a text")
    cost_ms = {int(bucket): float(cost) for bucket, cost in entry["cost_ms"].items()}
    if not cost_ms or not all(
        1 <= bucket <= _LARGEST_BUCKET and 0 < cost < math.inf for bucket, cost in cost_ms.items()
    ):
        raise ValueError("`cost_ms` holds sizes of batches and milliseconds above 0")
    info = ModelInfo.from_dict(entry["model"])
    if max(info.input_width, info.input_height) > _LONGEST_SIDE_PX:
        raise ValueError(f"an input of {info.input_width}x{info.input_height} px")
    if len(info.labels) > _MOST_LABELS:
        raise ValueError(f"{len(info.labels)} labels")
    return AnnouncedVersion(version, info, cost_ms)
