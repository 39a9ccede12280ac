"""Tests that a replica's folder stays while it lives, and that its leftovers are removed after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.supervisor.private_folder import PrivateFolder, remove_leftovers
from streamer.supervisor.restart_policy import CannotStart
from tests.helpers.service import ROOT

HOLD = """
from streamer.supervisor.private_folder import PrivateFolder
import sys, time
print(PrivateFolder().path, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_a_dead_ones_folder_goes_and_a_living_ones_stays(own_tmpdir: Path) -> None:
    processes, folders = [], []
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", HOLD], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()))
        process.stdout.close()
        processes.append(process)
    (folders[0] / "worker-0.sock").write_text("left")
    os.kill(processes[0].pid, signal.SIGKILL)
    processes[0].wait()
    remove_leftovers()
    assert not folders[0].exists()
    assert folders[1].exists()
    processes[1].kill()
    processes[1].wait()
    remove_leftovers()
    assert list(own_tmpdir.iterdir()) == []


def test_what_is_not_ours_stays(own_tmpdir: Path) -> None:
    foreign = own_tmpdir / "streamer-of-somebody"
    foreign.mkdir()
    link = own_tmpdir / "streamer-link"
    link.symlink_to(foreign)
    (own_tmpdir / "streamer-file").write_text("")
    remove_leftovers()
    assert sorted(path.name for path in own_tmpdir.iterdir()) == [
        "streamer-file",
        "streamer-link",
        "streamer-of-somebody",
    ]


def test_the_folder_is_private_and_goes_at_the_end(own_tmpdir: Path) -> None:
    folder = PrivateFolder()
    assert folder.path.parent == own_tmpdir
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()
    assert not folder.path.exists()


def test_a_place_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(CannotStart, match=r"Read-only file system; set TMPDIR"):
        PrivateFolder()
