"""Keeps the engines of the service running: the processes that run its models, each on its device.

A *generation* is the set of engines that serves one assignment of model files to versions. The engine table
tells the workers which generation serves. Another one is prepared beside it, and then takes its place.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.core.settings import InferenceSettings
from inference.ipc.engine_report import EngineReport, write_serving
from inference.ipc.engine_table import TABLE_BYTES, TABLE_CHANGED
from inference.ipc.process_handle import EXIT_MODEL_REFUSED, FINAL_EXIT_CODES, InferenceHandle
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import ENGINE_SLOTS, Presence, SharedStatus
from streamer.config.child_environment import ChildEnvironment
from streamer.supervisor.engine_devices import cores_of, devices_of
from streamer.supervisor.generation import Engine, Generation, GenerationFailed
from streamer.supervisor.log_relay import LogRelay
from streamer.supervisor.restart_policy import MAX_DEATHS, CannotStart, RestartPolicy
from streamer.supervisor.watchdog import WatchedProcess, watch_inference

log = logging.getLogger("streamer.supervisor")

#: Interval at which the supervisor looks at the shared status while it changes over; it does not otherwise.
_LOOK_S = 0.05
#: Longest time until all workers use a new generation. A worker that takes longer hangs, and is killed.
SWITCH_S = 15.0
#: Time that the engines of a replaced generation have to finish the frames that they hold.
RETIRE_S = 30.0


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
        self,
        role: str,
        name: str,
        code: int,
        policy: RestartPolicy,
        started: float,
        *,
        redundant: bool = False,
    ) -> bool:
        """Count the end of a process and wait before its next start; False when it must not start again."""


class Engines:
    """Owns all engines. Construct it, ``start()`` it in the running event loop, and end it with ``stop()``.

    `prepare`, `switch` and `retire` change over to other models; call one at a time. All methods run on the
    event loop of the supervisor.
    """

    def __init__(
        self, settings: InferenceSettings, shared_status: SharedStatus, launch: Launch, owner: Owner
    ) -> None:
        """Create the engines of the first generation, without processes.

        ``settings`` name its models; ``device`` is a value of DEVICE, so it may name several.
        """
        self._settings = settings
        self._devices = devices_of(settings.device)
        self._cores = cores_of(self._devices)
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
        #: All generations that have processes: the current one, one that is prepared, and those kept warm.
        self.generations: list[Generation] = []
        self._made = 0
        self.current = self._make({version: Path(path) for version, path in settings.models.items()})
        self._publish()

    @property
    def watched(self) -> list[WatchedProcess]:
        """The processes of all generations, for the watchdog."""
        return [engine.watched for generation in self.generations for engine in generation.engines]

    def start(self) -> None:
        """Start the engines of the first generation."""
        self._start(self.current)

    def tick(self) -> None:
        """Add to the engine table what the first engine that is ready has loaded; call this once a second."""
        if not self.current.sha256 and self._learn(self.current):
            self._publish()

    async def stop(self, patience_s: float) -> None:
        """End all engines; each gets SIGKILL after ``patience_s``."""
        self.ending = True
        await asyncio.gather(*(self._stop(each, patience_s) for each in self.generations))

    def close(self) -> None:
        """Close the sockets and the engine table."""
        for generation in self.generations:
            for engine in generation.engines:
                engine.handle.close()
        self.document.close()

    # -- changing over -------------------------------------------------------------------------------

    async def prepare(self, models: Mapping[str, Path]) -> Generation:
        """Start engines for ``models`` beside the present ones, and return them once all are ready.

        They get no frames before :meth:`switch`. Raises GenerationFailed with the cause if one of them
        cannot load a model; then nothing of them is left. The same holds if this is cancelled.
        """
        generation = self._make(models)
        self._start(generation)
        try:
            while not generation.fault and not all(engine.ready for engine in generation.engines):
                await asyncio.sleep(_LOOK_S)
            if not generation.fault and not self._learn(generation):
                generation.fault = "the engines are ready and have not reported what they loaded"
            if generation.fault:
                raise GenerationFailed(generation.fault)  # noqa: TRY301 - one place discards
        except BaseException:
            await self._discard(generation, 0.0)
            raise
        return generation

    async def switch(self, generation: Generation) -> Generation:
        """Let all workers use a prepared or warm generation, and return the one that they used before.

        The former one finishes its frames; end it with :meth:`retire`, or keep it. Raises GenerationFailed
        if the engines have ended meanwhile; then the present ones serve on.
        """
        if generation.fault or not all(engine.ready for engine in generation.engines):
            raise GenerationFailed(generation.fault or "the engines are not ready")
        former = self.current
        if generation is former:
            return former
        self.current = generation
        self._publish()
        until = time.monotonic() + SWITCH_S
        while not self._is_followed():
            if time.monotonic() > until:
                if any(engine.ready for engine in generation.engines):
                    log.error("workers that hang do not use the new models yet")
                    break
                self.current = former
                generation.fault = generation.fault or "the engines ended while workers changed over to them"
                self._publish()
                raise GenerationFailed(generation.fault)
            await asyncio.sleep(_LOOK_S)
        return former

    async def retire(self, generation: Generation) -> None:
        """End a generation that is not current, once its engines have finished the frames that they hold."""
        if generation is self.current:
            raise ValueError(f"generation {generation.number} serves")
        await self._discard(generation, RETIRE_S)

    def _is_followed(self) -> bool:
        """Return whether every worker that serves uses the current generation."""
        read = self._shared_status.read_worker
        numbers = range(int(self._shared_status.read("workers")))
        serving = [number for number in numbers if read(number, "presence") == Presence.SERVING]
        return all(read(number, "generation") == self.current.number for number in serving)

    async def _discard(self, generation: Generation, patience_s: float) -> None:
        generation.retiring = True
        await self._stop(generation, patience_s)
        for engine in generation.engines:
            engine.handle.close()
            engine.report.clear()
        if generation in self.generations:
            self.generations.remove(generation)
        if folder := self._copies_of(generation.number):
            shutil.rmtree(Path(folder) / "models", ignore_errors=True)

    # -- generations ---------------------------------------------------------------------------------

    def _make(self, models: Mapping[str, Path]) -> Generation:
        """Return a new generation without processes. Raises GenerationFailed if there are too many."""
        used = {engine.slot for each in self.generations for engine in each.engines}
        free = [slot for slot in range(ENGINE_SLOTS) if slot not in used]
        if len(free) < len(self._devices):
            raise GenerationFailed(
                f"{len(used)} engines run, and {len(self._devices)} more would exceed {ENGINE_SLOTS}"
            )
        self._made += 1
        generation = Generation(self._made, dict(models))
        for index, device in enumerate(self._devices):
            slot = free[index]
            generation.engines.append(self._make_engine(generation, slot, index, device))
        self.generations.append(generation)
        return generation

    def _make_engine(self, generation: Generation, slot: int, index: int, device: str) -> Engine:
        settings = dataclasses.replace(
            self._settings,
            models={version: str(path) for version, path in generation.models.items()},
            device=device,
            cores=self._cores[index],
            index=index,
            model_keep_dir=self._copies_of(generation.number),
            # One engine makes copies for all, so that no two write the same files.
            model_keep_max_bytes=self._settings.model_keep_max_bytes if index == 0 else 0,
        )
        status = self._shared_status.engine(slot)
        handle = InferenceHandle(settings, status, self._launch.descriptors)
        status.post("index", index)
        watched = watch_inference(
            handle,
            self._launch.timeout_s,
            lambda: self.ending or generation.retiring,
            _name(index, len(self._devices)),
        )
        report = EngineReport(self._settings.metrics_dir, slot)
        report.clear()
        return Engine(slot, index, device, handle, watched, report)

    def _copies_of(self, number: int) -> str:
        """Return the folder for copies of the models of a generation."""
        folder = self._settings.metrics_dir
        return f"{folder}/generation-{number}" if folder and number > 1 else folder

    def _learn(self, generation: Generation) -> bool:
        """Read what an engine that is ready has loaded; return False if none has reported it."""
        reports = (engine.report.sha256 for engine in generation.engines if engine.ready)
        generation.sha256 = next((found for found in reports if found), {})
        return bool(generation.sha256)

    def _publish(self) -> None:
        """Tell the workers to use the current generation."""
        self._shared_status.post("engines", sum(1 << engine.slot for engine in self.current.engines))
        if self._settings.metrics_dir and self.current.sha256:
            write_serving(self._settings.metrics_dir, self.current.sha256)
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
                await asyncio.gather(engine.keeper, return_exceptions=True)

    async def _keep(self, generation: Generation, engine: Engine) -> None:
        """Keep the process of an engine running while its generation is current."""
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
            if self._owner.stopping or self.ending or generation.retiring:
                return
            if generation is not self.current:
                generation.fault = engine.report.error or f"{name} ended with {ending_of(code)}"
                log.error("generation %d cannot serve: %s", generation.number, generation.fault)
                return
            redundant = any(other.ready for other in generation.engines if other is not engine)
            if code in FINAL_EXIT_CODES and not self._may_recover(engine, code, redundant=redundant):
                self._owner.fail(CannotStart(f"{name} refused to start (see above)", code))
                return
            status.post("restarts", status.read("restarts") + 1)
            self._shared_status.post("restarts", self._shared_status.read("restarts") + 1)
            # While others serve, an engine that keeps dying costs capacity, and not the service.
            policy.max_deaths = sys.maxsize if redundant else MAX_DEATHS
            if not await self._owner.pause_after(
                "inference", name, code, policy, started, redundant=redundant
            ):
                return

    def _may_recover(self, engine: Engine, code: int, *, redundant: bool) -> bool:
        """Return whether another start may succeed after a final exit code.

        A refused model that was served before may be accepted at the next start: its file is probably being
        replaced at the moment, and the service keeps no copy of it. A device that is unavailable may come
        back while other engines serve.
        """
        served = bool(engine.handle.status.read("served"))
        return served and (code == EXIT_MODEL_REFUSED or redundant)


def ending_of(code: int) -> str:
    """Return how a process has ended, for the log."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _name(index: int, engines: int) -> str:
    return "the inference process" if engines == 1 else f"inference process {index}"
