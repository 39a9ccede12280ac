"""Models are changed under load: nobody's request fails, no socket closes, and bad files change nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest

from streamer.cli.main import main
from tests.helpers.faulty_models import endless_model, external_data_model
from tests.helpers.model_factory import Input, Objects, constant_model, null_model, yolo_rows
from tests.helpers.service import PATIENT, Service, is_dead
from tests.helpers.webrtc_client import Track, WebrtcClient
from tests.helpers.wire_client import WireClient
from tests.unit.images import encode, scene

IMAGE = encode(scene(64, 64), ".jpg")
#: The score of the only box tells which model has run.
OLD_SCORE, NEW_SCORE = 0.9, 0.6
OLD: Objects = ((8.0, 8.0, 40.0, 48.0, OLD_SCORE, 0),)
NEW: Objects = ((20.0, 10.0, 60.0, 50.0, NEW_SCORE, 0),)


def make_models(folder: Path) -> Path:
    """Write two models with the same classes and one with others, and return the folder."""
    null_model(folder / "old.onnx", size=64, classes=2, objects=OLD)
    null_model(folder / "new.onnx", size=96, classes=2, objects=NEW)
    null_model(folder / "other.onnx", size=64, classes=3, objects=NEW)
    return folder


def settings_of(folder: Path, **more: str) -> dict[str, str]:
    return PATIENT | {"MODEL_V1_PATH": str(folder / "old.onnx"), "WORKERS": "2"} | more


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = make_models(tmp_path_factory.mktemp("models"))
    with Service(settings_of(folder)) as running:
        running.folder = folder  # type: ignore[attr-defined]
        yield running


@pytest.fixture
def folder(service: Service) -> Path:
    """Return the folder of the models of the shared service."""
    found: Path = service.folder  # type: ignore[attr-defined]
    return found


@contextlib.asynccontextmanager
async def http_client() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=180)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield session


async def change(session: aiohttp.ClientSession, service: Service, path: str, body: Any = None) -> Any:
    """Ask for a change; return status and body."""
    async with session.post(f"{service.http_url}/versions/{path}", json=body) as answer:
        return answer.status, await answer.json(content_type=None)


async def serves(session: aiohttp.ClientSession, service: Service, version: str = "v1") -> str:
    """Return the name of the file with which an image is answered."""
    async with session.post(f"{service.http_url}/{version}/predict", data=IMAGE) as answer:
        body = await answer.json()
        assert answer.status == 200, body
    name: str = body["model"]["name"]
    (found,) = body["detections"]
    assert found["score"] == (OLD_SCORE if name == "old" else NEW_SCORE), "box and name are of one model"
    return name


class Load:
    """Clients that send all the time, and notice everything that goes wrong."""

    def __init__(self, service: Service, session: aiohttp.ClientSession) -> None:
        self._service = service
        self._session = session
        self.stop = asyncio.Event()
        #: For each client, the models that answered, in order and without repetition.
        self.seen: dict[str, list[str]] = {}
        self.faults: list[str] = []

    def note(self, client: str, name: str) -> None:
        seen = self.seen.setdefault(client, [])
        if not seen or seen[-1] != name:
            seen.append(name)

    async def until_all_see(self, name: str, clients: int) -> None:
        """Wait until every client has got an answer of a model."""
        async with asyncio.timeout(120):
            while len(self.seen) < clients or any(seen[-1] != name for seen in self.seen.values()):
                assert not self.faults, self.faults
                await asyncio.sleep(0.02)

    async def post(self, client: str) -> None:
        while not self.stop.is_set():
            try:
                self.note(client, await serves(self._session, self._service))
            except (AssertionError, aiohttp.ClientError) as error:
                self.faults.append(f"{client}: {error!r}")
                return

    async def stream(self, client: str, mode: str, codec: str) -> None:
        """Stream over a WebSocket: every frame has one outcome, in order, and `configured` divides them."""
        url = f"{self._service.ws_url}/v1/stream"
        async with WireClient(url, subprotocol=f"detect.v1.{codec}") as wire:
            welcome = await wire.hello(
                streams=[{"id": 0, "codec": "jpeg", "mode": mode}], params={"track": True}
            )
            model, seq = welcome["model"]["name"], 0
            while not self.stop.is_set():
                seq += 1
                await wire.send_frame(seq, IMAGE, ts=seq * 40_000)
                while seq not in wire.outcomes.get(0, []):
                    message = await wire.next()
                    if message["type"] == "configured":
                        model = message["model"]["name"]
                        if message["model"]["labels"] != welcome["model"]["labels"]:
                            self.faults.append(f"{client}: labels {message}")
                    elif message["type"] in ("error", "bye", "drop"):
                        self.faults.append(f"{client}: {message}")
                        return
                    elif message["type"] == "result":
                        self._check(client, model, message)
            if sorted(wire.outcomes[0]) != list(range(1, seq + 1)):
                self.faults.append(f"{client}: outcomes {wire.outcomes[0]} of {seq} frames")

    async def video(self, client: str) -> None:
        """Stream over WebRTC."""
        async with WebrtcClient(f"{self._service.http_url}/v1/webrtc", track=Track(fps=15)) as peer:
            model, at = "", 0
            while not self.stop.is_set():
                await asyncio.sleep(0.02)
                messages, at = peer.messages[at:], len(peer.messages)
                for message in messages:
                    if message["type"] in ("welcome", "configured") and "model" in message:
                        model = message["model"]["name"]
                    elif message["type"] in ("error", "bye"):
                        self.faults.append(f"{client}: {message}")
                    elif message["type"] == "result" and model:
                        self._check(client, model, message)
            if peer.peer.connectionState != "connected":
                self.faults.append(f"{client}: {peer.peer.connectionState}")

    def _check(self, client: str, model: str, result: dict[str, Any]) -> None:
        """Note a result, which must be of the model that its client was told last."""
        (box,) = result["boxes"]
        expected = OLD_SCORE if model == "old" else NEW_SCORE
        if abs(box[4] - expected) > 1e-3:
            self.faults.append(f"{client}: score {box[4]} after the client was told {model}")
        self.note(client, model)


def engines(service: Service) -> set[psutil.Process]:
    """Return the processes that run models, without their fork servers."""
    found: set[psutil.Process] = set()
    for server in service.children("inference.engine.process"):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end between the two calls
            found |= {each for each in server.children() if not is_dead(each)}
    return found


async def until(condition: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.05)
    assert condition(), what


async def test_models_change_under_load_and_nobody_loses_anything(service: Service, folder: Path) -> None:
    async with http_client() as session:
        before = engines(service)
        load = Load(service, session)
        clients = [
            *(load.post(f"post {number}") for number in range(3)),
            load.stream("live", "live", "json"),
            load.stream("packed", "live", "msgpack"),
            load.stream("all", "all", "json"),
            load.video("video"),
        ]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client)
            try:
                await load.until_all_see("old", len(clients))
                digest = hashlib.sha256((folder / "new.onnx").read_bytes()).hexdigest()
                status, body = await change(
                    session, service, "v1/load", {"path": "new.onnx", "sha256": digest}
                )
                assert status == 200, body
                assert body["versions"]["v1"] == {"file": "new.onnx", "sha256": digest}
                assert (body["rollback"]["v1"]["file"], body["doing"]) == ("old.onnx", "")
                await load.until_all_see("new", len(clients))
                status, body = await change(session, service, "rollback")
                assert (status, body["versions"]["v1"]["file"]) == (200, "old.onnx")
                await load.until_all_see("old", len(clients))
            finally:
                load.stop.set()
        assert not load.faults
        for name, seen in load.seen.items():
            assert seen == ["old", "new", "old"], name
        await until(lambda: len(engines(service)) == len(before), "engines that were replaced have ended")
        assert not engines(service) & before, "and so have those of the start"
        await until(lambda: service.metric("object_detection_model_info") == 1, "the metrics name one model")
        kept = hashlib.sha256((folder / "old.onnx").read_bytes()).hexdigest()[:12]
        assert service.metric("object_detection_model_info", version="v1", sha256=kept) == 1


async def test_a_version_is_added_promoted_and_taken_back(service: Service) -> None:
    async with http_client() as session:
        async with session.post(f"{service.http_url}/v2/predict", data=IMAGE) as answer:
            assert answer.status == 404
        status, body = await change(session, service, "v2/load", {"path": "new.onnx"})
        assert status == 200, body
        assert (await serves(session, service), await serves(session, service, "v2")) == ("old", "new")
        async with WireClient(f"{service.ws_url}/v2/stream") as wire:
            welcome = await wire.hello(streams=[{"id": 0, "codec": "jpeg"}])
            assert welcome["model"] == welcome["model"] | {"version": "v2", "name": "new"}
            await wire.send_frame(1, IMAGE)
            assert (await wire.receive("result"))["seq"] == 1
        status, body = await change(session, service, "promote")
        assert (status, body["rollback_is_warm"]) == (200, True), body
        assert (await serves(session, service), await serves(session, service, "v2")) == ("new", "new")
        warm = len(engines(service))
        status, body = await change(session, service, "rollback")
        assert status == 200, body
        assert (await serves(session, service), await serves(session, service, "v2")) == ("old", "new")
        await until(lambda: len(engines(service)) == warm - 1, "the engines of the promotion have ended")


def _bad_files(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Return requests that name bad files, with the code of their refusal."""
    good = (folder / "new.onnx").read_bytes()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "cut.onnx").write_bytes(good[: len(good) - 40])
    (folder / "page.onnx").write_bytes(b"<!DOCTYPE html><html><title>Not found</title>")
    (folder / "folder.onnx").mkdir(exist_ok=True)
    flat = yolo_rows(NEW, 2).reshape(1, -1)
    constant_model(folder / "rank.onnx", {"output0": flat})
    constant_model(folder / "type.onnx", {"output0": yolo_rows(NEW, 2)}, Input(dtype=np.int64))
    constant_model(folder / "nan.onnx", {"output0": yolo_rows(NEW, 2) * np.float32(np.nan)})
    external_data_model(folder / "outside.onnx", "../secret.bin")
    (folder.parent / "secret.bin").write_bytes(b"secret")
    shutil.copy(folder / "new.onnx", folder.parent / "beside.onnx")
    return {
        "missing": ({"path": "absent.onnx"}, "no_such_file"),
        "empty": ({"path": "empty.onnx"}, "model_refused"),
        "truncated": ({"path": "cut.onnx"}, "model_refused"),
        "web page": ({"path": "page.onnx"}, "model_refused"),
        "wrong rank": ({"path": "rank.onnx"}, "model_refused"),
        "wrong type": ({"path": "type.onnx"}, "model_refused"),
        "NaN output": ({"path": "nan.onnx"}, "model_refused"),
        "other number of classes": ({"path": "other.onnx"}, "other_labels"),
        "wrong sha256": ({"path": "new.onnx", "sha256": "0" * 64}, "wrong_digest"),
        "external data outside": ({"path": "outside.onnx"}, "path_outside"),
        "traversal": ({"path": "../beside.onnx"}, "path_outside"),
        "directory": ({"path": "folder.onnx"}, "not_a_file"),
    }


#: Bodies with a missing, a wrong and an unknown field, and two of another form.
_WRONG_BODIES: tuple[Any, ...] = (
    *({}, {"path": 3}, {"path": "new.onnx", "extra": 1}, []),
    {"path": "", "sha256": "x"},
)


async def test_bad_files_are_refused_with_the_cause_and_change_nothing(
    service: Service, folder: Path
) -> None:
    bad = _bad_files(folder)
    assert len(bad) == 12
    async with http_client() as session:
        load = Load(service, session)
        before = engines(service)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.post("post"))
            group.create_task(load.stream("live", "live", "json"))
            try:
                await load.until_all_see("old", 2)
                for case, (body, code) in bad.items():
                    status, answer = await change(session, service, "v1/load", body)
                    assert (status, answer["code"]) == (422, code), (case, answer)
                    assert len(answer["detail"]) > 30, case
                    assert str(folder.parent) not in answer["detail"], "clients get no paths of the machine"
                    assert "secret" not in answer["detail"].replace("../secret.bin", "")
                for wrong in _WRONG_BODIES:
                    assert (await change(session, service, "v1/load", wrong))[0] == 422, wrong
            finally:
                load.stop.set()
        assert not load.faults
        assert all(seen == ["old"] for seen in load.seen.values())
        assert (await change(session, service, "v3/load", {"path": "new.onnx"}))[0] == 404
        assert (await change(session, service, "v1/load"))[0] == 415
        assert await serves(session, service) == "old"
    await until(lambda: engines(service) == before, "processes with bad files have ended")


async def test_the_command_line_shows_and_changes_models(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMER_TOKEN", raising=False)

    async def run(*words: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["versions", *words, "--url", service.http_url])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    code, out, _ = await run("list")
    assert code == 0
    assert "v1  old.onnx  sha256 " in out
    code, out, err = await run("load", "v1", "absent.onnx")
    assert (code, out) == (1, "")
    assert "has no such file" in err
    code, out, _ = await run("load", "v1", "old.onnx", "--json")
    assert (code, json.loads(out)["versions"]["v1"]["file"]) == (0, "old.onnx")
    code, _, err = await run("list", "--token", "not a token")
    assert code == 2
    code = await asyncio.to_thread(main, ["versions", "rollback", "--url", "http://127.0.0.1:9"])
    assert code == 3


async def _kill(service: Service, victim: str, before: set[psutil.Process]) -> None:
    """Kill one process with SIGKILL, as soon as a change has started the processes of the new model."""
    if victim == "new":
        await until(lambda: engines(service) - before, "the new engine runs")
        targets = list(engines(service) - before)
    elif victim == "old":
        targets = list(before)
    else:
        targets = service.workers[:1]
    for target in targets:
        with contextlib.suppress(psutil.NoSuchProcess):
            target.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("victim", ["old", "new", "worker"])
async def test_a_process_that_is_killed_during_a_change_leaves_one_of_the_models_serving(
    service: Service, victim: str
) -> None:
    async with http_client() as session:
        before = engines(service)
        path = "other.onnx" if await _served(session, service) == "old" else "old.onnx"
        body = {"path": path, "labels_may_change": True}
        asked = asyncio.create_task(change(session, service, "v1/load", body))
        await _kill(service, victim, before)
        # The worker that was killed may be the one that was asked.
        with contextlib.suppress(aiohttp.ClientError):
            status, answer = await asked
            assert status in (200, 409, 422), answer
        async with asyncio.timeout(120):
            while (name := await _served(session, service)) not in ("old", "other"):
                await asyncio.sleep(0.1)
            while not await _loaded_again(session, service):
                await asyncio.sleep(0.1)
        assert name
        assert await _served(session, service) == "old"


async def test_kills_in_every_phase_leave_one_of_the_models_serving(tmp_path: Path, full: bool) -> None:
    """Twenty kills, at times drawn over the whole change: old and new engines, workers, the supervisor."""
    if not full:
        pytest.skip("minutes; with --full")
    draw = random.Random(18)
    settings = settings_of(make_models(tmp_path))
    service = Service(settings)
    try:
        await asyncio.to_thread(service.wait_ready)
        async with http_client() as session:
            for number in range(20):
                victim = ("old", "new", "worker", "supervisor")[number % 4]
                before = engines(service)
                path = "new.onnx" if await _served(session, service) == "old" else "old.onnx"
                asked = asyncio.create_task(change(session, service, "v1/load", {"path": path}))
                await asyncio.sleep(draw.uniform(0, 4))
                if victim == "supervisor":
                    await asyncio.to_thread(service.kill_all)
                    await asyncio.to_thread(service.stop)
                    service = Service(settings)
                    await asyncio.to_thread(service.wait_ready)
                elif victim == "new" and not engines(service) - before:
                    victim = "none"
                else:
                    await _kill(service, victim, before)
                with contextlib.suppress(aiohttp.ClientError):
                    await asked
                async with asyncio.timeout(120):
                    while await _served(session, service) not in ("old", "new"):
                        await asyncio.sleep(0.1)
                    while len(engines(service)) != 1:
                        await asyncio.sleep(0.1)
    finally:
        service.stop()


async def test_a_model_that_hangs_in_its_first_run_is_given_up(tmp_path: Path, full: bool) -> None:
    if not full:
        pytest.skip("half a minute; with --full")
    folder = make_models(tmp_path)
    endless_model(folder / "endless.onnx")
    with Service(settings_of(folder, MODEL_START_TIMEOUT_S="30")) as service:
        async with http_client() as session:
            load = Load(service, session)
            async with asyncio.TaskGroup() as group:
                group.create_task(load.post("post"))
                try:
                    await load.until_all_see("old", 1)
                    status, answer = await change(session, service, "v1/load", {"path": "endless.onnx"})
                finally:
                    load.stop.set()
            assert (status, answer["code"]) == (422, "model_refused"), answer
            assert "MODEL_START_TIMEOUT_S" in answer["detail"]
            assert not load.faults
            assert await serves(session, service) == "old"


async def _loaded_again(session: aiohttp.ClientSession, service: Service) -> bool:
    """Return whether the old model could be loaded; a connection to the worker that was killed fails."""
    back = {"path": "old.onnx", "labels_may_change": True}
    try:
        return bool((await change(session, service, "v1/load", back))[0] == 200)
    except aiohttp.ClientError:
        return False


async def _served(session: aiohttp.ClientSession, service: Service) -> str:
    """Return the model that answers an image; empty if none answers now."""
    try:
        async with session.post(f"{service.http_url}/v1/predict", data=IMAGE) as answer:
            body = await answer.json(content_type=None)
    except aiohttp.ClientError:
        return ""
    return str(body["model"]["name"]) if answer.status == 200 else ""


async def test_the_choice_survives_the_death_of_the_supervisor(tmp_path: Path) -> None:
    settings = settings_of(make_models(tmp_path), ADMIN_API_KEYS="dummy-key-of-an-administrator")
    first = Service(settings)
    try:
        await asyncio.to_thread(first.wait_ready)
        async with http_client() as session:
            assert (await change(session, first, "v1/load", {"path": "new.onnx"}))[0] == 401
            session.headers["Authorization"] = "Bearer dummy-key-of-an-administrator"
            status, body = await change(session, first, "v1/load", {"path": "new.onnx"})
            assert status == 200, body
        first.kill_all()
    finally:
        first.stop()
    stored = json.loads((tmp_path / ".versions.json").read_text())
    assert Path(stored["current"]["v1"]["path"]).name == "new.onnx"
    with Service(settings) as again:
        async with http_client() as session:
            assert await serves(session, again) == "new"
            session.headers["Authorization"] = "Bearer dummy-key-of-an-administrator"
            status, body = await change(session, again, "rollback")
            assert (status, await serves(session, again)) == (200, "old"), body
