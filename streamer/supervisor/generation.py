"""Holds one generation: the engines that serve one assignment of model files to versions.

`engines.py` starts them, keeps them running and ends them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference.ipc.engine_report import EngineReport
from inference.ipc.engine_table import EngineEntry, EngineTable, VersionEntry
from inference.ipc.process_handle import InferenceHandle
from inference.ipc.shared_status import State
from streamer.supervisor.watchdog import WatchedProcess


class GenerationFailed(Exception):
    """Engines could not be prepared, or could not take over; the present ones serve on. The text is the
    cause."""


@dataclass(slots=True)
class Engine:
    """Holds one engine: its place in the generation, its device and its process."""

    slot: int
    index: int
    device: str
    handle: InferenceHandle
    watched: WatchedProcess
    report: EngineReport
    #: Keeps the process running; None before the first start.
    keeper: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the engine serves."""
        return self.handle.status.state is State.READY


@dataclass(slots=True)
class Generation:
    """Holds the engines of one assignment of models."""

    number: int
    models: Mapping[str, Path]
    engines: list[Engine] = field(default_factory=list)
    #: Digest of the loaded file of each version; empty until an engine has loaded all.
    sha256: dict[str, str] = field(default_factory=dict)
    #: Why a process of it has ended while it was not current, so that it cannot take over; empty if none has.
    fault: str = ""
    #: Whether it is being ended.
    retiring: bool = False

    @property
    def addresses(self) -> list[str]:
        """Addresses of its engines."""
        return [engine.handle.address for engine in self.engines]

    @property
    def pids(self) -> list[int]:
        """Process ids of its engines that run."""
        return [engine.handle.pid for engine in self.engines if engine.handle.pid is not None]

    def table(self, secret: str) -> EngineTable:
        """Return the table that tells workers to use these engines."""
        return EngineTable(
            self.number,
            tuple(EngineEntry(e.slot, e.index, e.device, e.handle.address) for e in self.engines),
            {
                version: VersionEntry(str(path), self.sha256.get(version))
                for version, path in self.models.items()
            },
            time.time(),
            secret,
        )
