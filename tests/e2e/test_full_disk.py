"""Tests that the service keeps serving and counting when TMPDIR is full or deleted."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.service import Service
from tests.helpers.waiting import wait_for


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MiB and yield its folder."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(folder: Path) -> None:
    """Write until nothing more fits."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)


def make_new_series(service: Service) -> None:
    """Send requests whose combinations of path and status no series counts yet."""
    for path in ("/v1/predict", "/v2/predict", "/v9/predict", "/nothing"):
        service.get(path)


@pytest.mark.parametrize("full_from", ["start", "later"])
def test_a_full_tmpdir_ends_no_process(small_disk: Path, full_from: str) -> None:
    if full_from == "start":
        fill(small_disk)
    with Service({"TMPDIR": str(small_disk), "SAMPLING": "False", "WORKERS": "2"}) as service:
        fill(small_disk)
        make_new_series(service)
        service.inference.kill()
        wait_for(lambda: service.metric("object_detection_process_restarts_total") == 1)
        service.wait_ready()
        service.workers[0].kill()
        wait_for(lambda: service.metric("object_detection_process_restarts_total", role="worker") == 1)
        make_new_series(service)
        assert "SIGBUS" not in service.log
        assert service.metric("object_detection_frames_received_total") == 0


def test_a_tmpdir_that_is_deleted_costs_no_metric_and_no_restart(tmp_path: Path) -> None:
    with Service({"TMPDIR": str(tmp_path), "SAMPLING": "False", "WORKERS": "2"}) as service:
        for folder in tmp_path.glob("streamer-*"):
            shutil.rmtree(folder)
        make_new_series(service)
        service.workers[0].kill()
        wait_for(lambda: service.metric("object_detection_process_restarts_total", role="worker") == 1)
        service.inference.kill()
        wait_for(lambda: service.metric("object_detection_process_restarts_total", role="inference") == 1)
        service.wait_ready()
        assert service.stop() == 0


def test_a_killed_supervisors_folder_is_removed_by_the_next_one(tmp_path: Path) -> None:
    settings = {"TMPDIR": str(tmp_path), "SAMPLING": "False"}
    with Service(settings) as service:
        (left,) = tmp_path.glob("streamer-*")
        service.kill_all()
    assert left.exists()
    with Service(settings):
        assert not left.exists()
        assert len(list(tmp_path.glob("streamer-*"))) == 1
    assert list(tmp_path.glob("streamer-*")) == []
