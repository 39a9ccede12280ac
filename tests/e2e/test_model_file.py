"""Tests that the service keeps its model when the file changes or disappears and inference restarts."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.model_factory import PLAIN, blob_model, colour_model
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for


def delete(path: Path) -> None:
    path.unlink()


def delete_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def truncate_in_place(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(100)


def put_another_model(path: Path) -> None:
    blob_model(path.with_suffix(".new"), PLAIN)
    path.with_suffix(".new").rename(path)


def break_the_manifest(path: Path) -> None:
    path.with_suffix(".json").write_text("{ no JSON")


def has_restarted(service: Service, times: float) -> bool:
    return service.metric("object_detection_process_restarts_total", role="inference") == times


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[tuple[Service, Path]]:
    """Run a service; yield it and its model's file, which the tests change one after another."""
    (folder / "tmp").mkdir()
    (folder / "models").mkdir()
    path = colour_model(folder / "models" / "served.onnx", PLAIN)
    settings = {"MODEL_V1_PATH": str(path), "TMPDIR": str(folder / "tmp"), "SAMPLING": "False"}
    with Service(settings) as service:
        wait_for(lambda: list((folder / "tmp").glob("streamer-*/models/v1/served.onnx")))
        yield service, path
        assert service.stop() == 0


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    with serving(tmp_path_factory.mktemp("changing")) as served:
        yield served


@pytest.fixture(scope="module")
def removing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    with serving(tmp_path_factory.mktemp("removing")) as served:
        yield served


#: The order matters: the last two changes remove the file and its folder. They have a service of their own,
#: because one whose inference process died five times in a minute is not ready for ten seconds.
@pytest.mark.parametrize(
    ("served", "change", "deaths"),
    [
        ("changing", break_the_manifest, 1),
        ("changing", truncate_in_place, 1),
        ("changing", put_another_model, 2),
        ("removing", delete, 1),
        ("removing", delete_the_folder, 1),
    ],
)
def test_the_model_of_the_start_is_served_on(
    request: pytest.FixtureRequest, served: str, change: Callable[[Path], None], deaths: int
) -> None:
    service, path = request.getfixturevalue(served)
    before = service.get_json("/health")["models"]["v1"]
    change(path)
    for _ in range(deaths):
        ended = service.metric("object_detection_process_restarts_total", role="inference")
        service.inference.kill()
        wait_for(partial(has_restarted, service, ended + 1))
        service.wait_ready()
    health = service.get_json("/health")
    assert health["models"]["v1"] == before
    if change is not break_the_manifest:  # the service reads only its copy of the manifest
        wait_for(lambda: "the file of model 1 has changed" in service.get("/health")[1].decode())
        wait_for(lambda: service.metric("object_detection_model_kept", version="v1") == 1)
        wait_for(lambda: "has changed or gone since the service was started" in service.log)


def test_without_a_copy_a_refused_restart_is_tried_again(tmp_path: Path) -> None:
    path = colour_model(tmp_path / "served.onnx", PLAIN)
    settings = {"MODEL_V1_PATH": str(path), "MODEL_KEEP_MAX_BYTES": "0", "SAMPLING": "False"}
    with Service(settings) as service:
        path.rename(tmp_path / "away")
        service.inference.kill()
        wait_for(lambda: "model refused" in service.log)
        assert service.get("/livez")[0] == 200
        assert service.get("/health")[0] == 503
        (tmp_path / "away").rename(path)
        service.wait_ready()


def test_a_bad_model_at_the_first_start_still_ends_it_with_4(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    service = Service({"MODEL_V1_PATH": str(tmp_path / "bad.onnx"), "SAMPLING": "False"})
    assert service.wait(60) == 4
    service.stop()
