"""Keeps the engines of the service running: the processes that run its models, each on its device.

A *generation* is the set of engines that serves one assignment of model files to versions. The engine table
tells the workers which generation serves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from inference.core.settings import InferenceSettings
from inference.ipc.engine_table import TABLE_BYTES, TABLE_CHANGED, EngineEntry, EngineTable, VersionEntry
from inference.ipc.process_handle import EXIT_MODEL_REFUSED, FINAL_EXIT_CODES, InferenceHandle
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import ENGINE_SLOTS, SharedStatus
from streamer.config.child_environment import ChildEnvironment
from streamer.supervisor.log_relay import LogRelay
from streamer.supervisor.restart_policy import CannotStart, RestartPolicy
from streamer.supervisor.watchdog import WatchedProcess, watch_inference

log = logging.getLogger("streamer.supervisor")


@dataclass(slots=True)
class Engine:
    """Holds one engine: its place in the generation, its device and its process."""

    slot: int
    index: int
    device: str
    handle: InferenceHandle
    watched: WatchedProcess
    #: Keeps the process running; None before the first start.
    keeper: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Generation:
    """Holds the engines of one assignment of models."""

    number: int
    models: Mapping[str, Path]
    engines: list[Engine] = field(default_factory=list)

    def table(self, secret: str) -> EngineTable:
        """Return the table that tells workers to use these engines."""
        return EngineTable(
            self.number,
            tuple(EngineEntry(e.slot, e.index, e.device, e.handle.address) for e in self.engines),
            {version: VersionEntry(str(path)) for version, path in self.models.items()},
            time.time(),
            secret,
        )


@dataclass(frozen=True, slots=True)
class Launch:
    """Holds what every process of an engine is started with."""

    environment: ChildEnvironment
    #: Collects the log of the processes.
    relay: LogRelay
    #: Processes inherit them.
    descriptors: Sequence[int]
    #: A process that is not ready after this time is killed.
    timeout_s: float


class Owner(Protocol):
    """Describes who owns the engines: the supervisor."""

    @property
    def stopping(self) -> bool:
        """Whether the service is being ended."""

    def fail(self, failure: CannotStart) -> None:
        """End the service."""

    async def pause_after(
        self, role: str, name: str, code: int, policy: RestartPolicy, started: float
    ) -> bool:
        """Count the end of a process and wait before its next start; False when it must not start again."""


class Engines:
    """Owns all engines. Construct it, ``start()`` it in the running event loop, and end it with ``stop()``.

    All methods run on the event loop of the supervisor.
    """

    def __init__(
        self, settings: InferenceSettings, shared_status: SharedStatus, launch: Launch, owner: Owner
    ) -> None:
        """Create the engines of the first generation, without processes.

        ``settings`` name its models and devices.
        """
        self._settings = settings
        self._shared_status = shared_status
        self._launch = launch
        self._owner = owner
        self._secret = secrets.token_hex(16)
        #: The engine table; workers inherit its descriptor.
        self.document = SharedDocument(capacity_bytes=TABLE_BYTES)
        #: Sockets through which workers are told that the table has changed.
        self.channels: Sequence[socket.socket] = ()
        #: Whether the engines are being stopped.
        self.ending = False
        self._generations: list[Generation] = []
        self.current = self._make({version: Path(path) for version, path in settings.models.items()})
        self._publish()

    @property
    def watched(self) -> list[WatchedProcess]:
        """The processes of all generations, for the watchdog."""
        return [engine.watched for generation in self._generations for engine in generation.engines]

    def start(self) -> None:
        """Start the engines of the first generation."""
        self._start(self.current)

    async def stop(self, patience_s: float) -> None:
        """End all engines; each gets SIGKILL after ``patience_s``."""
        self.ending = True
        await asyncio.gather(*(self._stop(each, patience_s) for each in self._generations))

    def close(self) -> None:
        """Close the sockets and the engine table."""
        for generation in self._generations:
            for engine in generation.engines:
                engine.handle.close()
        self.document.close()

    # -- generations ---------------------------------------------------------------------------------

    def _make(self, models: Mapping[str, Path]) -> Generation:
        """Return a new generation without processes."""
        number = max((generation.number for generation in self._generations), default=0) + 1
        generation = Generation(number, dict(models))
        self._generations.append(generation)
        used = {engine.slot for each in self._generations for engine in each.engines}
        free = [slot for slot in range(ENGINE_SLOTS) if slot not in used]
        for index, device in enumerate([self._settings.device]):
            settings = dataclasses.replace(
                self._settings, models={version: str(path) for version, path in models.items()}, device=device
            )
            status = self._shared_status.engine(free[index])
            handle = InferenceHandle(settings, status, self._launch.descriptors)
            status.post("index", index)
            watched = watch_inference(handle, self._launch.timeout_s, lambda: self.ending, _name(index, 1))
            generation.engines.append(Engine(free[index], index, device, handle, watched))
        return generation

    def _publish(self) -> None:
        """Tell the workers to use the current generation."""
        self._shared_status.post("engines", sum(1 << engine.slot for engine in self.current.engines))
        self.document.publish(self.current.table(self._secret).to_json())
        for channel in self.channels:
            try:
                channel.send(TABLE_CHANGED)
            except OSError:  # its buffer is full; the worker looks at the table once a second, too
                log.debug("a worker was not told about the engine table")

    def _start(self, generation: Generation) -> None:
        for engine in generation.engines:
            engine.keeper = asyncio.get_running_loop().create_task(
                self._keep(generation, engine), name=f"engine-{engine.slot}"
            )

    async def _stop(self, generation: Generation, patience_s: float) -> None:
        await asyncio.gather(*(engine.handle.stop(patience_s) for engine in generation.engines))
        for engine in generation.engines:
            if engine.keeper is not None:
                engine.keeper.cancel()

    async def _keep(self, generation: Generation, engine: Engine) -> None:
        """Keep the process of an engine running."""
        policy = RestartPolicy()
        handle, status = engine.handle, engine.handle.status
        name = _name(engine.index, len(generation.engines))
        while True:
            started = time.monotonic()
            if not handle.has_fork_server:
                with self._launch.relay.output_of("inference") as output:
                    await handle.start_fork_server(self._launch.environment.variables, output)
            handle.start()
            code = await handle.wait()
            if self._owner.stopping or self.ending:
                return
            # A refused model that was served before may be accepted at the next start: its file is probably
            # being replaced at the moment, and the service keeps no copy of it.
            if code in FINAL_EXIT_CODES and not (code == EXIT_MODEL_REFUSED and status.read("served")):
                self._owner.fail(CannotStart(f"{name} refused to start (see above)", code))
                return
            status.post("restarts", status.read("restarts") + 1)
            self._shared_status.post("restarts", self._shared_status.read("restarts") + 1)
            if not await self._owner.pause_after("inference", name, code, policy, started):
                return


def _name(index: int, engines: int) -> str:
    return "the inference process" if engines == 1 else f"inference process {index}"
