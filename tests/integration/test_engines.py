"""The supervisor's engines with real processes: preparing, changing over to, and ending a generation."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost
from inference.core.settings import InferenceSettings
from inference.ipc.engine_set import EngineSet
from inference.ipc.shared_status import Presence, SharedStatus, State
from inference.ipc.wire import Result
from streamer.config.child_environment import ChildEnvironment
from streamer.config.settings import load_settings
from streamer.supervisor import engines as supervised
from streamer.supervisor.engines import Engines, Launch
from streamer.supervisor.generation import Generation, GenerationFailed
from streamer.supervisor.log_relay import LogRelay
from streamer.supervisor.log_writer import LogWriter
from streamer.supervisor.restart_policy import CannotStart, RestartPolicy
from tests.helpers.model_factory import null_model
from tests.helpers.service import ROOT


class Owner:
    """Stands in for the supervisor: notes what the engines report."""

    stopping = False

    def __init__(self) -> None:
        self.failures: list[CannotStart] = []
        #: For each restart, whether another engine served meanwhile.
        self.restarts: list[bool] = []

    def fail(self, failure: CannotStart) -> None:
        self.failures.append(failure)

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
        self.restarts.append(redundant)
        return True


class Rig:
    """Holds the engines of a supervisor, and what a worker has of them."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder = folder
        self.owner = Owner()
        self.status = SharedStatus()
        self.status.post("workers", 1)
        self.status.post_worker(0, "presence", Presence.SERVING)
        self.log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
        self.relay = LogRelay(LogWriter(self.log, json_lines=False))
        self.models = {name: null_model(folder / f"{name}.onnx", size=size) for name, size in SIZES.items()}
        settings = InferenceSettings(
            {"v1": str(self.models["a"])}, device=device, inference_threads=1, metrics_dir=str(folder)
        )
        environment = ChildEnvironment(load_settings(), None)
        self.engines = Engines(settings, self.status, Launch(environment, self.relay, [], 60.0), self.owner)
        self.worker = EngineSet(self.engines.document, shared_status=self.status)
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self.engines.start()
        await self.worker.start()
        self._refreshing = asyncio.create_task(self._refresh())
        await self.until(lambda: all(engine.ready for engine in self.worker.engines))

    async def _refresh(self) -> None:
        """Do what a worker does once a second, only sooner."""
        while True:
            self.engines.tick()
            self.worker.refresh()
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
        await self.worker.close()
        self.status.post("ending", 1)
        await self.engines.stop(5.0)
        self.engines.close()
        self.relay.close()
        os.close(self.log)

    async def run(self) -> Result | InferenceLost:
        """Run a frame on the model that the worker has now."""
        answered: asyncio.Future[Result | InferenceLost] = asyncio.get_running_loop().create_future()
        model = self.worker.models["v1"]
        ticket = self.worker.acquire(answered.set_result)
        self.worker.submit(ticket, model, DetectionParams(), stream=1, interactive=False, deadline=1e12)
        async with asyncio.timeout(60):
            return await answered

    @property
    def side_px(self) -> int:
        """Side of the input of the model that serves."""
        return self.worker.models["v1"].info.input_width

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    def processes(self, generation: Generation) -> list[psutil.Process]:
        return [psutil.Process(int(engine.handle.status.read("pid"))) for engine in generation.engines]


#: Side in pixels of the input of each model.
SIZES = {"a": 64, "b": 96}


@pytest.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[str], Rig]]:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    made: list[Rig] = []

    def start(device: str) -> Rig:
        made.append(Rig(tmp_path, device))
        return made[0]

    yield start
    for rig in made:
        await rig.close()


async def test_another_model_takes_over_and_the_former_engines_end(make: Callable[[str], Rig]) -> None:
    rig = make("cpu")
    await rig.start()
    changes: list[set[str]] = []
    rig.worker.on_models = changes.append
    first = rig.engines.current
    await rig.until(lambda: first.sha256)
    (rig.folder / "bad.onnx").write_bytes(b"<html>not found</html>")
    with pytest.raises(GenerationFailed, match="web page"):
        await rig.engines.prepare({"v1": rig.folder / "bad.onnx"})
    assert rig.engines.generations == [first]
    assert isinstance(await rig.run(), Result)

    second = await rig.engines.prepare({"v1": rig.models["b"]})
    assert (rig.side_px, changes) == (SIZES["a"], []), "the prepared engines get no frames"
    begun: asyncio.Future[Result | InferenceLost] = asyncio.get_running_loop().create_future()
    old_model, ticket = rig.worker.models["v1"], rig.worker.acquire(begun.set_result)
    assert await rig.engines.switch(second) is first
    assert (rig.side_px, changes) == (SIZES["b"], [{"v1"}])
    assert isinstance(await rig.run(), Result)
    ending = asyncio.create_task(rig.engines.retire(first))
    (process,) = rig.processes(first)
    # The former engine waits for the frame that was begun for it.
    await rig.until(lambda: first.engines[0].handle.status.read("retiring"))
    rig.worker.submit(ticket, old_model, DetectionParams(), stream=1, interactive=False, deadline=1e12)
    async with asyncio.timeout(60):
        assert isinstance(await begun, Result)
        await ending
    assert not process.is_running()
    assert isinstance(await rig.run(), Result)
    assert (rig.owner.failures, rig.owner.restarts) == ([], [])
    assert rig.worker.table.versions["v1"].sha256 == second.sha256["v1"]

    # The engine that took over is restarted like the first one, with its own model.
    (process,) = rig.processes(second)
    process.send_signal(signal.SIGKILL)
    await rig.until(lambda: not rig.worker.ready)
    await rig.until(lambda: rig.worker.ready)
    assert (rig.side_px, rig.owner.restarts) == (SIZES["b"], [False])


async def test_engines_that_are_warm_take_over_again_unless_they_have_died(
    make: Callable[[str], Rig],
) -> None:
    rig = make("cpu")
    await rig.start()
    first = rig.engines.current
    second = await rig.engines.prepare({"v1": rig.models["b"]})
    await rig.engines.switch(second)
    assert rig.side_px == SIZES["b"]
    await rig.engines.switch(first)
    assert rig.side_px == SIZES["a"]
    assert isinstance(await rig.run(), Result)
    (process,) = rig.processes(second)
    process.send_signal(signal.SIGKILL)
    await rig.until(lambda: second.fault)
    with pytest.raises(GenerationFailed, match="SIGKILL"):
        await rig.engines.switch(second)
    assert rig.engines.current is first
    with pytest.raises(ValueError, match="serves"):
        await rig.engines.retire(first)
    await rig.engines.retire(second)
    assert rig.engines.generations == [first]
    assert isinstance(await rig.run(), Result)


async def test_engines_that_end_while_workers_change_over_do_not_take_over(
    make: Callable[[str], Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make("cpu")
    await rig.start()
    first = rig.engines.current
    second = await rig.engines.prepare({"v1": rig.models["b"]})
    monkeypatch.setattr(supervised, "SWITCH_S", 0.2)
    monkeypatch.setattr(rig.worker, "refresh", lambda: None)  # the worker notices nothing

    async def never(*_: object, **__: object) -> bool:
        await asyncio.sleep(3600)
        return False

    monkeypatch.setattr(rig.owner, "pause_after", never)
    switching = asyncio.create_task(rig.engines.switch(second))
    (process,) = rig.processes(second)
    await rig.until(lambda: rig.engines.current is second)
    process.send_signal(signal.SIGKILL)
    with pytest.raises(GenerationFailed):
        await switching
    assert rig.engines.current is first
    assert isinstance(await rig.run(), Result)


async def test_one_of_two_engines_serves_while_the_other_one_restarts(make: Callable[[str], Rig]) -> None:
    rig = make("cpu,cpu")
    await rig.start()
    assert rig.worker.models["v1"].parallel == 2
    cores = os.sched_getaffinity(0)
    parts = [set(process.cpu_affinity()) for process in rig.processes(rig.engines.current)]
    if len(cores) > 1:
        assert parts[0] | parts[1] == cores
        assert not parts[0] & parts[1]
    process, _ = rig.processes(rig.engines.current)
    process.send_signal(signal.SIGKILL)
    await rig.until(lambda: rig.worker.models["v1"].parallel == 1)
    assert rig.status.state is State.READY
    for _ in range(5):
        assert isinstance(await rig.run(), Result)
    await rig.until(lambda: rig.worker.models["v1"].parallel == 2)
    assert rig.owner.restarts == [True]
