"""Tests that one process holds a partial file, hashes it once, and renames it when it is complete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from io import FileIO
from pathlib import Path

import pytest

from streamer.model_zoo.download_url import CannotWrite
from streamer.model_zoo.partial_file import DownloadSource, PartialFile

ORIGIN = DownloadSource("https://host/x", '"tag"', 6)


def hold(target: Path) -> PartialFile:
    partial = PartialFile.hold(target)
    assert partial is not None
    return partial


def hash_all(partial: PartialFile) -> str:
    while partial.hash_on(2):
        pass
    return partial.sha256()


def test_bytes_are_hashed_as_they_are_appended(tmp_path: Path) -> None:
    with hold(tmp_path / "deep" / "x.onnx") as partial:
        partial.begin(ORIGIN)
        partial.append(b"abc")
        partial.append(b"def")
        assert partial.sha256() == hashlib.sha256(b"abcdef").hexdigest()
        partial.finish()
    assert (tmp_path / "deep" / "x.onnx").read_bytes() == b"abcdef"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.onnx"]


def test_a_reopened_part_knows_its_source(tmp_path: Path) -> None:
    with hold(tmp_path / "x.onnx") as partial:
        partial.begin(ORIGIN)
        partial.append(b"abc")
    with hold(tmp_path / "x.onnx") as partial:
        assert (partial.size, partial.source, partial.joined) == (3, ORIGIN, False)
        with pytest.raises(ValueError, match="0 of 3 bytes are hashed"):
            partial.sha256()
        partial.append(b"de")  # not hashed yet, because the bytes before it are not
        hash_all(partial)
        partial.append(b"f")
        assert partial.sha256() == hashlib.sha256(b"abcdef").hexdigest()


def test_beginning_again_forgets_the_old_bytes(tmp_path: Path) -> None:
    with hold(tmp_path / "x.onnx") as partial:
        partial.begin(ORIGIN)
        partial.append(b"abc")
        partial.joined = True
        partial.begin(DownloadSource("https://host/y"))
        assert (partial.size, partial.joined) == (0, False)
        partial.append(b"z")
        assert partial.sha256() == hashlib.sha256(b"z").hexdigest()
    assert json.loads((tmp_path / "x.onnx.part.json").read_text())["url"] == "https://host/y"


def test_an_empty_or_discarded_part_leaves_no_files(tmp_path: Path) -> None:
    with hold(tmp_path / "x.onnx"):
        pass
    with hold(tmp_path / "x.onnx") as partial:
        partial.begin(ORIGIN)
        partial.append(b"abc")
        partial.discard()
    assert list(tmp_path.iterdir()) == []


def test_one_process_holds_it_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "x.onnx"
    with hold(target) as partial:
        assert PartialFile.hold(target) is None
        partial.begin(ORIGIN)
        partial.append(b"abc")
        partial.finish()
        # The lock belongs to the file that is now installed. The next process must get a new file instead.
        with hold(target) as other:
            assert other.size == 0
            other.begin(ORIGIN)
    assert target.read_bytes() == b"abc"


def test_a_file_that_was_installed_during_the_wait_for_its_lock_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.onnx"
    first = hold(target)
    first.begin(ORIGIN)
    first.append(b"abc")
    flock = fcntl.flock

    def finish_first(file: FileIO, operation: int) -> None:
        if not target.exists():
            first.finish()
            first.close()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    with hold(target) as second:
        second.begin(ORIGIN)
    assert target.read_bytes() == b"abc"


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"url": "u", "etag": "", "total": "many"}'])
def test_an_unusable_note_counts_as_none(tmp_path: Path, note: str) -> None:
    (tmp_path / "x.onnx.part").write_bytes(b"abc")
    (tmp_path / "x.onnx.part.json").write_text(note)
    with hold(tmp_path / "x.onnx") as partial:
        assert partial.source is None


def test_a_full_disk_keeps_the_received_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hold(tmp_path / "x.onnx") as partial:
        partial.begin(ORIGIN)
        partial.append(b"abc")

        class Full:
            """Stands for a file on a disk that has space for two bytes."""

            def __init__(self, file: FileIO) -> None:
                self._file = file
                self._room = 2

            def write(self, data: memoryview) -> int:
                if not self._room:
                    raise OSError(errno.ENOSPC, "no space")
                self._room = 0
                return self._file.write(data[:2])

            def fileno(self) -> int:
                return self._file.fileno()

        file = partial._file
        monkeypatch.setattr(partial, "_file", Full(file))
        with pytest.raises(CannotWrite, match=r"x\.onnx\.part: the disk is full; what was received is kept"):
            partial.append(b"def")
        monkeypatch.setattr(partial, "_file", file)
        assert partial.size == 5
        assert hash_all(partial) == hashlib.sha256(b"abcde").hexdigest()
    assert (tmp_path / "x.onnx.part").read_bytes() == b"abcde"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_without_permission_is_reported_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CannotWrite, match=r"x\.onnx\.part: .*; --to DIR installs elsewhere"):
        PartialFile.hold(tmp_path / "x.onnx")


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").mkdir()
    with hold(tmp_path / "x.onnx") as partial:
        partial.begin(ORIGIN)
        partial.append(b"abc")
        with pytest.raises(CannotWrite, match=r"x\.onnx: Is a directory"):
            partial.finish()
    assert (tmp_path / "x.onnx.part").read_bytes() == b"abc"


def test_bytes_of_another_writer_are_never_installed(tmp_path: Path) -> None:
    """As on a network file system whose locks do not hold between machines."""
    (tmp_path / "x.onnx").write_bytes(b"previous")
    with hold(tmp_path / "x.onnx") as partial:
        partial.begin(ORIGIN)
        partial.append(b"abc")
        with partial.path.open("ab") as other:
            other.write(b"xyz")
        assert partial.sha256() == hashlib.sha256(b"abc").hexdigest(), (
            "that of what this process has received"
        )
        with pytest.raises(CannotWrite, match="expected the 3 bytes that were received; found 6"):
            partial.finish()
    assert (tmp_path / "x.onnx").read_bytes() == b"previous"


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(
        CannotWrite, match=r"x\.onnx\.part: the file system has no locks \(No locks available\)"
    ):
        PartialFile.hold(tmp_path / "x.onnx")
