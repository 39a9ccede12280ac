"""The supervisor changes what is served, one change at a time, and any failure leaves it as it was."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inference.core.errors import WireError
from inference.ipc import announcement, unix_socket, wire
from inference.models.model import ModelInfo
from streamer.supervisor import version_changes
from streamer.supervisor.control_socket import ControlSocket
from streamer.supervisor.generation import GenerationFailed
from streamer.supervisor.version_changes import VersionChanges
from streamer.versions.errors import ChangeRefused
from streamer.versions.model_path import digest_of
from streamer.versions.requests import SupervisorUnavailable, ask_supervisor
from streamer.versions.state_file import ModelFile, StateFile, VersionsState
from tests.helpers.hostile_child import MODEL

INFO = ModelInfo.from_dict(MODEL)


class FakeGeneration:
    def __init__(self, number: int, models: Mapping[str, Path]) -> None:
        self.number = number
        self.models = {
            version: dataclasses.replace(INFO, sha256=digest_of(path), labels=labels_in(path))
            for version, path in models.items()
        }
        self.addresses = [str(number)]
        self.pids = [os.getpid()]


def labels_in(path: Path) -> tuple[str, ...]:
    """Return the labels of a model of these tests: the words of its file."""
    return tuple(path.read_text().split()[1:])


class FakeEngines:
    """Keeps generations without processes."""

    def __init__(self, models: Mapping[str, Path]) -> None:
        self.current = FakeGeneration(1, models)
        self.all = {"1": self.current}
        self.retired: list[int] = []
        self.dead: set[int] = set()
        self.failure: Exception | None = None
        self.prepared: list[Mapping[str, Path]] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def prepare(self, models: Mapping[str, Path]) -> FakeGeneration:
        self.prepared.append(models)
        await self.may_go_on.wait()
        if self.failure is not None:
            raise self.failure
        made = FakeGeneration(len(self.all) + 1, models)
        self.all[str(made.number)] = made
        return made

    async def switch(self, generation: Any) -> FakeGeneration:
        assert generation.number not in self.retired
        if generation.number in self.dead:
            raise GenerationFailed("the engines are not ready")
        former, self.current = self.current, generation
        return former

    async def retire(self, generation: Any) -> None:
        assert generation is not self.current
        self.retired.append(generation.number)

    async def announce(self, address: str) -> dict[str, ModelInfo]:
        found = self.all[address]
        if found.number in self.retired:
            raise WireError("gone")
        return found.models


class Bench:
    """A folder with models, engines, and what changes them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *, keep_s: float = 3600.0) -> None:
        self.folder = folder
        for name in ("one", "two", "three"):
            (folder / f"{name}.onnx").write_text(f"{name} person bus")
        (folder / "other.onnx").write_text("other tram")
        self.configured = {"v1": folder / "one.onnx", "v2": folder / "two.onnx"}
        self.engines = FakeEngines(self.configured)
        monkeypatch.setattr(version_changes, "read_announcement", self.engines.announce)
        self.file = StateFile(folder / ".versions.json", self.configured)
        state = VersionsState({version: ModelFile(path) for version, path in self.configured.items()})
        folders = dict.fromkeys(self.configured, folder)
        self.changes = VersionChanges(self.engines, self.file, state, folders, keep_s=keep_s)

    async def load(self, version: str, name: str, **more: Any) -> dict[str, Any]:
        return await self.changes.load({"version": version, "path": f"{name}.onnx", "who": "ann", **more})

    async def promote(self) -> dict[str, Any]:
        return await self.changes.promote({"who": "ann"})

    async def rollback(self) -> dict[str, Any]:
        return await self.changes.rollback({"who": "ann"})

    @property
    def served(self) -> dict[str, str]:
        return {version: model.path.stem for version, model in self.changes.state.current.items()}


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def refusal_of(change: Any) -> ChangeRefused:
    with pytest.raises(ChangeRefused) as refused:
        await change
    return refused.value


async def test_a_load_replaces_one_version_and_is_stored(bench: Bench) -> None:
    answer = await bench.load("v2", "three")
    assert bench.served == {"v1": "one", "v2": "three"}
    assert bench.engines.current.number == answer["generation"] == 2
    assert answer["versions"]["v2"] == {
        "file": "three.onnx",
        "sha256": digest_of(bench.folder / "three.onnx"),
    }
    assert (answer["rollback"]["v2"]["file"], answer["doing"]) == ("two.onnx", "")
    await settle()
    assert bench.engines.retired == [1]
    stored = bench.file.read()
    assert stored is not None
    assert stored.current == bench.changes.state.current
    await bench.load("v2", "three")
    assert bench.engines.current.number == 2, "it is served already"


async def test_a_promotion_keeps_the_engines_for_a_rollback(bench: Bench) -> None:
    answer = await bench.promote()
    await settle()
    assert bench.served == {"v1": "two", "v2": "two"}
    assert (answer["rollback_is_warm"], bench.engines.retired) == (True, [])
    answer = await bench.rollback()
    await settle()
    assert bench.served == {"v1": "one", "v2": "two"}
    assert (bench.engines.current.number, bench.engines.retired) == (1, [2])
    assert len(bench.engines.prepared) == 1, "nothing was loaded again"
    await bench.rollback()
    assert bench.served == {"v1": "two", "v2": "two"}, "a rollback can be taken back"


async def test_engines_that_died_while_they_were_kept_are_loaded_again(bench: Bench) -> None:
    await bench.promote()
    bench.engines.dead.add(1)
    answer = await bench.rollback()
    await settle()
    assert (bench.served, answer["generation"]) == ({"v1": "one", "v2": "two"}, 3)
    assert bench.engines.retired == [1, 2]


async def test_engines_are_not_kept_for_longer_than_was_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, keep_s=0.01)
    await bench.promote()
    async with asyncio.timeout(30):
        while bench.engines.retired != [1]:
            await asyncio.sleep(0.01)
    answer = await bench.rollback()
    assert bench.served == {"v1": "one", "v2": "two"}
    assert (answer["generation"], answer["rollback_is_warm"]) == (3, False)


async def test_a_new_change_ends_the_engines_that_were_kept(bench: Bench) -> None:
    await bench.promote()
    await bench.load("v2", "three")
    await settle()
    assert bench.engines.retired == [1, 2]
    assert bench.served == {"v1": "two", "v2": "three"}


async def test_there_is_one_change_at_a_time(bench: Bench) -> None:
    bench.engines.may_go_on.clear()
    first = asyncio.create_task(bench.load("v2", "three"))
    async with asyncio.timeout(30):
        while not bench.engines.prepared:
            await asyncio.sleep(0.001)
    for second in (bench.load("v1", "two"), bench.promote(), bench.rollback()):
        refused = await refusal_of(second)
        assert (refused.status, refused.code) == (409, "change_in_progress")
        assert "load of 'three.onnx' as v2" in str(refused)
    assert (await bench.changes.status({}))["doing"]
    bench.engines.may_go_on.set()
    await first
    assert (await bench.changes.status({}))["doing"] == ""


async def test_a_failure_leaves_everything_as_it_was(bench: Bench) -> None:
    bench.engines.failure = GenerationFailed("three.onnx: expected an ONNX file; found zeros")
    refused = await refusal_of(bench.load("v2", "three"))
    assert (refused.status, refused.code) == (422, "model_refused")
    assert "found zeros" in str(refused)
    assert (bench.served, bench.engines.current.number) == ({"v1": "one", "v2": "two"}, 1)
    assert not bench.file.path.exists()
    bench.engines.failure = None
    await bench.load("v2", "three")


async def test_other_classes_are_refused_unless_they_are_meant(bench: Bench) -> None:
    refused = await refusal_of(bench.load("v2", "other"))
    assert (refused.status, refused.code) == (422, "other_labels")
    for words in ("2 classes (person, bus)", "1 class (tram)", "labels_may_change"):
        assert words in str(refused)
    await settle()
    assert (bench.engines.current.number, bench.engines.retired) == (1, [2])
    await bench.load("v2", "other", labels_may_change=True)
    assert bench.served["v2"] == "other"
    assert (await refusal_of(bench.promote())).code == "other_labels"
    await bench.rollback()
    assert bench.served["v2"] == "two", "what was served before may be served again"


async def test_bytes_that_change_while_they_are_loaded_are_refused(bench: Bench) -> None:
    prepare = bench.engines.prepare

    async def replace_and_prepare(models: Mapping[str, Path]) -> FakeGeneration:
        models["v2"].write_text("replaced person bus")
        return await prepare(models)

    bench.engines.prepare = replace_and_prepare  # type: ignore[method-assign]
    refused = await refusal_of(bench.load("v2", "three"))
    assert refused.code == "file_changed"
    await settle()
    assert (bench.engines.current.number, bench.engines.retired) == (1, [2])


async def test_a_digest_that_does_not_fit_is_refused_before_anything_is_loaded(bench: Bench) -> None:
    assert (await refusal_of(bench.load("v2", "three", sha256="0" * 64))).code == "wrong_digest"
    assert (await refusal_of(bench.load("v2", "absent"))).code == "no_such_file"
    assert (await refusal_of(bench.load("v3", "three"))).code == "unknown_version"
    assert (await refusal_of(bench.load("v2", "../three"))).code == "path_outside"
    assert not bench.engines.prepared


async def test_a_change_needs_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version_changes, "available_bytes", lambda: 1 << 20)
    refused = await refusal_of(bench.load("v2", "three"))
    assert (refused.status, refused.code) == (409, "no_room")
    assert not bench.engines.prepared


async def test_what_cannot_be_rolled_back_or_promoted(bench: Bench) -> None:
    assert (await refusal_of(bench.rollback())).code == "nothing_to_roll_back"
    await bench.load("v2", "three")
    (bench.folder / "two.onnx").write_text("two was replaced")
    refused = await refusal_of(bench.rollback())
    assert (refused.status, refused.code) == (409, "file_changed")
    await bench.promote()
    assert (await refusal_of(bench.promote())).code == "nothing_to_promote"


async def test_a_version_that_did_not_exist_can_be_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.engines.current.models.pop("v2")
    only = {"v1": ModelFile(tmp_path / "one.onnx")}
    folders = dict.fromkeys(("v1", "v2"), tmp_path)
    bench.changes = VersionChanges(bench.engines, bench.file, VersionsState(only), folders, keep_s=1.0)
    assert (await refusal_of(bench.promote())).code == "nothing_to_promote"
    await bench.load("v2", "other")
    assert bench.served == {"v1": "one", "v2": "other"}
    assert "taken away" in str(await refusal_of(bench.rollback()))


async def test_nothing_is_changed_while_the_engines_are_down(bench: Bench) -> None:
    bench.engines.retired.append(1)
    refused = await refusal_of(bench.load("v2", "three"))
    assert (refused.status, refused.code) == (409, "not_ready")


async def test_every_change_and_refusal_is_audited(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.load("v2", "three")
    await refusal_of(bench.load("v2", "absent"))
    done, refused = (record for record in caplog.records if record.name == "streamer.audit")
    assert (done.__dict__["key"], done.__dict__["outcome"]) == ("ann", "done")
    assert done.__dict__["v2"].endswith("three.onnx")
    assert refused.__dict__["outcome"] == "no_such_file"


# -- control socket -----------------------------------------------------------------------------------


async def test_only_workers_are_answered() -> None:
    workers: set[int] = set()
    control = ControlSocket(lambda: workers)

    async def status(request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("fail"):
            raise ChangeRefused("no_room", "none", conflict=True)
        return {"asked": request["x"]}

    control.add("status", status)
    await control.start()
    address = control.address
    try:
        with pytest.raises(SupervisorUnavailable):
            await ask_supervisor(address, {"verb": "status", "x": 1}, 30)
        workers.add(os.getpid())
        assert await ask_supervisor(address, {"verb": "status", "x": 1}, 30) == {"asked": 1}
        with pytest.raises(ChangeRefused) as refused:
            await ask_supervisor(address, {"verb": "status", "fail": True}, 30)
        assert (refused.value.status, refused.value.code, str(refused.value)) == (409, "no_room", "none")
        for request in ({"verb": "status"}, {"verb": "nonsense"}, {"no": "verb"}):
            with pytest.raises(ChangeRefused):
                await ask_supervisor(address, request, 30)
    finally:
        control.close()
    with pytest.raises(SupervisorUnavailable):
        await ask_supervisor(address, {"verb": "status"}, 5)


async def test_an_announcement_is_read_as_workers_read_it() -> None:
    assert announcement.HELLO == wire.Kind.HELLO
    listener = unix_socket.listen()
    labels = [f"class {number}" for number in range(20_000)]
    message = {"versions": [{"version": "v1", "model": MODEL | {"labels": labels}}]}
    try:
        address = unix_socket.address_of(listener)
        reading = asyncio.create_task(announcement.read_announcement(address))
        await asyncio.sleep(0)
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            parts = wire.pack_text(wire.Kind.HELLO, message)
            assert len(parts) > 1
            for part in parts:
                await asyncio.to_thread(connection.send, part)
            found = await reading
        assert len(found["v1"].labels) == 20_000
    finally:
        listener.close()


@pytest.mark.parametrize("sent", [b"", b"\x05xx", b"\x01\x00{", b'\x01\x00{"versions": 3}', b"\x01\x00[]"])
async def test_what_is_no_announcement_is_an_error(sent: bytes) -> None:
    listener = unix_socket.listen()
    try:
        reading = asyncio.create_task(announcement.read_announcement(unix_socket.address_of(listener)))
        connection, _ = await asyncio.to_thread(listener.accept)
        with connection:
            if sent:
                connection.send(sent)
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(WireError):
                await reading
    finally:
        listener.close()


def test_results_are_lines_of_json() -> None:
    from streamer.versions.requests import pack_result  # noqa: PLC0415 - only here

    assert json.loads(pack_result({"a": "x\ny"})) == {"result": {"a": "x\ny"}}
