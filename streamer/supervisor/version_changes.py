"""Carries out changes of the models that are served: load, promote, rollback. One at a time.

A change prepares a second generation of engines beside the one that serves. Only when that one has loaded and
warmed up its models, and they are what was asked for, the workers change over to it. Whatever fails before
leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from inference.core.errors import WireError
from inference.ipc.announcement import read_announcement
from inference.models.model import ModelInfo
from streamer.access.identity import audit
from streamer.supervisor.generation import GenerationFailed
from streamer.versions.errors import ChangeRefused
from streamer.versions.loaded_models import check_digests, check_labels, not_loaded, with_digests
from streamer.versions.memory_room import available_bytes, check_room, resident_bytes
from streamer.versions.model_path import check_digest, digest_of, find_model
from streamer.versions.state_file import Assignment, ModelFile, StateFile, VersionsState

log = logging.getLogger("streamer.supervisor")

VERSIONS = ("v1", "v2")


class Generation(Protocol):
    """Describes the engines that serve one assignment of models."""

    number: int

    @property
    def addresses(self) -> Sequence[str]:
        """Addresses of the engines."""

    @property
    def pids(self) -> Sequence[int]:
        """Process ids of the engines that run."""


AnyGeneration = TypeVar("AnyGeneration", bound=Generation)


class Engines(Protocol[AnyGeneration]):
    """Describes the owner of the engines."""

    @property
    def current(self) -> AnyGeneration:
        """The generation that serves."""

    async def prepare(self, models: Mapping[str, Path]) -> AnyGeneration:
        """Return a new generation that is ready to serve. Raises GenerationFailed, and leaves none of it."""

    async def switch(self, generation: AnyGeneration) -> AnyGeneration:
        """Let all workers use a generation, and return the one before. Raises GenerationFailed."""

    async def retire(self, generation: AnyGeneration) -> None:
        """End a generation when no frame is left in it."""


class VersionChanges(Generic[AnyGeneration]):
    """Changes what is served. All methods run on the event loop of the supervisor."""

    def __init__(
        self,
        engines: Engines[AnyGeneration],
        state_file: StateFile,
        state: VersionsState,
        folders: Mapping[str, Path],
        *,
        keep_s: float,
    ) -> None:
        """Take what is served now. ``folders`` has the folder below which the models of each version lie.

        Engines that `promote` replaces stay warm for ``keep_s`` seconds.
        """
        self._engines = engines
        self._file = state_file
        self._state = state
        self._folders = folders
        self._keep_s = keep_s
        #: What is being done; empty if nothing is.
        self._doing = ""
        #: Engines to which `rollback` can go back at once, and the task that ends them later.
        self._warm: AnyGeneration | None = None
        self._cooling: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> VersionsState:
        """What is served, and what was served before."""
        return self._state

    def close(self) -> None:
        """Stop all timers. Engines are ended by their owner."""
        for task in (self._cooling, *self._background):
            if task is not None:
                task.cancel()

    # -- verbs -----------------------------------------------------------------------------------------

    async def status(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is served, what `rollback` goes back to, and what is being done."""
        return self._describe()

    async def load(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Serve the file ``path`` as ``version``. Raises ChangeRefused."""
        version, name = request["version"], request["path"]
        if version not in VERSIONS:
            raise ChangeRefused("unknown_version", f"the version is {version!r:.40}; it is v1 or v2")
        async with self._only_one(f"load of {name!r:.200} as {version}", request):
            path = find_model(self._folders[version], name)
            found = await asyncio.to_thread(digest_of, path)
            check_digest(name, found, request.get("sha256"))
            model = ModelFile(path, found)
            serving = await self._serving()
            if self._state.current.get(version) != model:
                await self._change({**self._state.current, version: model}, request, serving)
        return self._describe()

    async def promote(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Serve the model of v2 as v1, too. What v1 was stays warm. Raises ChangeRefused."""
        async with self._only_one("promotion of v2", request):
            serving = await self._serving()
            current = self._state.current
            if "v2" not in current:
                raise ChangeRefused("nothing_to_promote", "v2 has no model; load one first", conflict=True)
            if current["v2"].sha256 == current["v1"].sha256:
                raise ChangeRefused("nothing_to_promote", "v1 already serves the model of v2", conflict=True)
            await self._change({**current, "v1": current["v2"]}, request, serving, keep=True)
        return self._describe()

    async def rollback(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Serve what was served before the last change. Raises ChangeRefused."""
        async with self._only_one("rollback", request):
            previous = self._state.previous
            if previous is None:
                raise ChangeRefused("nothing_to_roll_back", "no change was made before", conflict=True)
            if missing := self._state.current.keys() - previous.keys():
                raise ChangeRefused(
                    "nothing_to_roll_back",
                    f"{', '.join(sorted(missing))} had no model before the last change, and a version cannot "
                    "be taken away while the service runs",
                    conflict=True,
                )
            serving = await self._serving()
            if not await self._go_back(previous):
                for version, model in previous.items():
                    if await asyncio.to_thread(digest_of, model.path) != model.sha256:
                        raise ChangeRefused(
                            "file_changed",
                            f"{model.path.name}, which {version} served before, is missing or has another "
                            "content",
                            conflict=True,
                        )
                # Clients have seen these classes before.
                await self._change(previous, {**request, "labels_may_change": True}, serving)
        return self._describe()

    async def remember(self, name: str, value: Any, what: str, request: Mapping[str, Any]) -> bool:
        """Keep a field of another feature in the state file; return whether it survives a restart.

        Raises ChangeRefused while another change is in progress.
        """
        async with self._only_one(what, request):
            await self._serving()
            self._state = replace(self._state, extra={**self._state.extra, name: value})
            return await asyncio.to_thread(self._file.write, self._state)

    # -- steps -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _only_one(self, what: str, request: Mapping[str, Any]) -> AsyncIterator[None]:
        """Refuse a second change while one runs, and write the outcome to the audit log."""
        who = str(request.get("who", ""))
        if self._doing:
            raise ChangeRefused(
                "change_in_progress", f"another change is in progress: {self._doing}", conflict=True
            )
        self._doing = what
        try:
            yield
            served = {version: str(model.path) for version, model in self._state.current.items()}
            audit(f"versions: {what}", key=who, outcome="done", **served)
        except ChangeRefused as refused:
            audit(f"versions: {what}", key=who, outcome=refused.code, reason=str(refused)[:1000])
            raise
        finally:
            self._doing = ""

    async def _serving(self) -> Mapping[str, ModelInfo]:
        """Return the models that are served, and note their digests. Raises ChangeRefused."""
        try:
            serving = await read_announcement(self._engines.current.addresses[0])
        except (OSError, WireError) as error:
            raise ChangeRefused(
                "not_ready", f"the models that are served now are not loaded yet: {error}", conflict=True
            ) from error
        self._state = replace(self._state, current=with_digests(self._state.current, serving))
        return serving

    async def _change(
        self,
        assignment: Assignment,
        request: Mapping[str, Any],
        serving: Mapping[str, ModelInfo],
        *,
        keep: bool = False,
    ) -> None:
        """Serve other models. Raises ChangeRefused, and leaves everything as it was."""
        self._end_warm()
        await asyncio.to_thread(self._check_room, assignment, self._engines.current.pids)
        try:
            generation = await self._engines.prepare({v: model.path for v, model in assignment.items()})
        except GenerationFailed as error:
            raise not_loaded(assignment, str(error)) from error
        try:
            loaded = await read_announcement(generation.addresses[0])
            check_digests(assignment, loaded)
            if not request.get("labels_may_change"):
                check_labels(serving, loaded)
            await self._switch(generation, assignment, keep=keep)
        except (OSError, WireError, GenerationFailed) as error:
            self._retire(generation)
            raise ChangeRefused("engine_lost", f"the process with the new model ended: {error}") from error
        except BaseException:
            self._retire(generation)
            raise

    async def _go_back(self, previous: Assignment) -> bool:
        """Switch to the engines that are kept for a rollback; return False if there are none that run."""
        warm = self._take_warm()
        if warm is None:
            return False
        try:
            await self._switch(warm, previous, keep=False)
        except GenerationFailed as error:
            log.warning("the engines that were kept for a rollback cannot be used: %s", error)
            self._retire(warm)
            return False
        return True

    async def _switch(self, generation: AnyGeneration, assignment: Assignment, *, keep: bool) -> None:
        before = await self._engines.switch(generation)
        state = replace(self._state, current=assignment, previous=self._state.current, changed_at=time.time())
        self._state = state
        await asyncio.to_thread(self._file.write, state)
        if keep and self._keep_s > 0:
            self._warm = before
            self._cooling = asyncio.get_running_loop().create_task(self._cool(), name="rollback-keep")
        else:
            self._retire(before)

    def _check_room(self, assignment: Assignment, pids: Sequence[int]) -> None:
        """Raise ChangeRefused if the new engines will not fit beside the present ones."""
        present = sum(_size(model.path) for model in self._state.current.values())
        new = sum(_size(model.path) for model in assignment.values())
        check_room(resident_bytes(pids), present, new, available_bytes())

    async def _cool(self) -> None:
        await asyncio.sleep(self._keep_s)
        self._cooling = None
        self._end_warm()

    def _take_warm(self) -> AnyGeneration | None:
        """Return the engines that are kept for a rollback, which are not kept any more."""
        if self._cooling is not None:
            self._cooling.cancel()
            self._cooling = None
        warm, self._warm = self._warm, None
        return warm

    def _end_warm(self) -> None:
        """End the engines that are kept for a rollback, which loads its models again from now on."""
        warm = self._take_warm()
        if warm is not None:
            self._retire(warm)

    def _retire(self, generation: AnyGeneration) -> None:
        """End a generation in the background: it may still have frames."""
        task = asyncio.get_running_loop().create_task(self._engines.retire(generation))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _describe(self) -> dict[str, Any]:
        state = self._state
        found: dict[str, Any] = {
            "generation": self._engines.current.number,
            "versions": _shown(state.current),
            "rollback": None if state.previous is None else _shown(state.previous),
            "rollback_is_warm": self._warm is not None,
            "doing": self._doing,
        }
        if state.changed_at:
            found["changed_at"] = state.changed_at
        return found


def _shown(assignment: Assignment) -> dict[str, dict[str, str]]:
    return {
        version: {"file": model.path.name, "sha256": model.sha256} for version, model in assignment.items()
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


#: Verbs of the control socket.
Verb = Callable[[Mapping[str, Any]], Awaitable[Any]]


def verbs_of(changes: VersionChanges[Any]) -> dict[str, Verb]:
    """Return the verbs that workers may ask for."""
    return {
        "status": changes.status,
        "load": changes.load,
        "promote": changes.promote,
        "rollback": changes.rollback,
    }
