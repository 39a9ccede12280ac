"""The spool keeps accepted samples on disk, clears half-written ones, and refuses new ones when full."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.sampling.errors import SpoolBroken, SpoolFull, SpoolInUse
from streamer.sampling.spool import Spool

SIDECAR = {"image": {"key": "v1/images/dt=2026-01-01/stream=a/b.jpg"}}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", 10_000)
    opened.open()
    yield opened
    opened.close()


def test_what_was_accepted_is_found_by_the_next_process_oldest_first(spool: Spool, tmp_path: Path) -> None:
    for index, name in enumerate(("b", "a", "c")):
        assert spool.accept(name, name.encode(), SIDECAR | {"n": name}, 0.0)
        os.utime(tmp_path / "spool" / "ready" / f"{name}.json", (index, index))
    spool.close()
    following = Spool(tmp_path / "spool", 10_000)
    following.open()
    assert following.oldest() == ["b", "a", "c"]
    assert (following.read("a").image, following.read("a").sidecar["n"]) == (b"a", "a")
    assert following.used_bytes == spool.used_bytes
    assert following.oldest_s(10.0) == 10.0
    following.remove("b")
    assert following.oldest() == ["a", "c"]
    assert sorted(path.stem for path in (tmp_path / "spool" / "ready").iterdir()) == ["a", "a", "c", "c"]
    following.close()


def test_the_same_sample_is_accepted_once(spool: Spool) -> None:
    assert spool.accept("a", b"1", SIDECAR, 0.0)
    assert not spool.accept("a", b"1", SIDECAR, 0.0)
    assert len(spool) == 1


def test_halves_and_what_was_being_written_are_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    for path in ("ready/alone.bin", "ready/orphan.json", "aside/image"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    spool = Spool(folder, 10_000)
    spool.open()
    assert (len(spool), list((folder / "ready").iterdir()), list((folder / "aside").iterdir())) == (0, [], [])
    spool.close()


def test_a_full_spool_refuses_and_keeps_what_it_has(spool: Spool) -> None:
    spool.accept("a", b"x" * 9000, SIDECAR, 0.0)
    with pytest.raises(SpoolFull, match="of 10000 bytes"):
        spool.accept("b", b"x" * 1000, SIDECAR, 0.0)
    assert spool.oldest() == ["a"]
    spool.remove("a")
    assert spool.accept("b", b"x" * 1000, SIDECAR, 0.0)


def test_a_store_on_the_same_disk_counts_against_the_limit(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 10_000, lambda: 9_999)
    spool.open()
    with pytest.raises(SpoolFull):
        spool.accept("a", b"x", SIDECAR, 0.0)
    spool.close()


def test_some_of_the_disk_is_left_to_others(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = list(os.statvfs("/"))
    fields[4] = 0  # f_bavail: no free blocks
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
    with pytest.raises(SpoolFull, match="left to others"):
        spool.accept("a", b"x", SIDECAR, 0.0)


@pytest.mark.parametrize("failing", ["write", "fsync", "rename"])
def test_a_failing_disk_keeps_nothing_and_says_so(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path if failing == "rename" else os, failing, fail)
        with pytest.raises(SpoolBroken, match="No space left"):
            spool.accept("a", b"x", SIDECAR, 0.0)
    assert len(spool) == 0
    assert [path.name for path in (tmp_path / "spool").rglob("*") if path.is_file()] == ["lock"]
    assert spool.accept("a", b"x", SIDECAR, 0.0)


def test_everything_is_flushed_before_it_counts(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        assert len(spool) == 0
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    spool.accept("a", b"x", SIDECAR, 0.0)
    assert flushed == ["image", "sidecar", "ready"]


def test_nobody_else_may_read_it(spool: Spool, tmp_path: Path) -> None:
    spool.accept("a", b"x", SIDECAR, 0.0)
    for path in (tmp_path / "spool").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_two_sampling_processes_never_share_a_spool(spool: Spool, tmp_path: Path) -> None:
    second = Spool(tmp_path / "spool", 10_000)
    with pytest.raises(SpoolInUse, match="another replica"):
        second.open()
    spool.close()
    second.open()
    second.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolBroken, match="file"):
        Spool(tmp_path / "file" / "spool", 10_000).open()


_WRITER = """
import sys
from pathlib import Path
from streamer.sampling.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 40)
spool.open()
start = len(spool)
print("open", flush=True)
for index in range(start, 1_000_000):
    name = f"s{index:06d}"
    spool.accept(name, name.encode() * 5000, {"name": name}, 0.0)
    print(name, flush=True)
"""


def test_nothing_accepted_is_lost_when_the_writer_is_killed_at_any_moment(tmp_path: Path) -> None:
    accepted: set[str] = set()
    for round_number in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "spool")], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        if round_number % 2:  # a busy machine may not get to the first sample within the time
            accepted.add(writer.stdout.readline().strip())
        time.sleep(0.013 * (round_number + 1))
        writer.send_signal(signal.SIGKILL)
        accepted |= {line for line in writer.stdout.read().split("\n")[:-1] if line}
        writer.stdout.close()
        writer.wait()
    spool = Spool(tmp_path / "spool", 1 << 40)
    spool.open()
    kept = set(spool.oldest())
    # Each kill may leave one more sample, when the process ended between flushing it and printing its name.
    assert accepted <= kept
    assert len(kept - accepted) <= 8
    assert accepted
    for name in kept:
        sample = spool.read(name)
        assert (sample.image, sample.sidecar) == (name.encode() * 5000, {"name": name})
    spool.close()


def test_a_sidecar_that_is_not_json_is_reported(spool: Spool, tmp_path: Path) -> None:
    spool.accept("a", b"x", SIDECAR, 0.0)
    (tmp_path / "spool" / "ready" / "a.json").write_text("{")
    with pytest.raises(SpoolBroken, match="ready/a"):
        spool.read("a")
