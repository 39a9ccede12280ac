"""Model files that a request names are checked before a process loads them, and the choice survives."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from streamer.versions.errors import ChangeRefused
from streamer.versions.memory_room import available_bytes, check_room, resident_bytes
from streamer.versions.model_check import check_model
from streamer.versions.model_path import check_digest, digest_of, find_model, model_folders
from streamer.versions.state_file import ModelFile, StateFile, VersionsState
from tests.helpers.faulty_models import external_data_model
from tests.helpers.model_factory import null_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one good model, beside a file that nobody may reach."""
    (tmp_path / "secret.onnx").write_bytes(b"secret")
    models = tmp_path / "models"
    (models / "sub").mkdir(parents=True)
    null_model(models / "good.onnx")
    null_model(models / "sub" / "good.onnx")
    return models


def refused(folder: Path, name: str, sha256: str | None = None) -> tuple[str, str]:
    with pytest.raises(ChangeRefused) as error:
        check_model(folder, name, sha256)
    assert error.value.status == 422
    return error.value.code, str(error.value)


def test_good_files_pass(folder: Path) -> None:
    digest = hashlib.sha256((folder / "good.onnx").read_bytes()).hexdigest()
    check_model(folder, "good.onnx", None)
    check_model(folder, "good.onnx", digest)
    check_model(folder, "sub/good.onnx", None)
    assert digest_of(find_model(folder, "good.onnx")) == digest


@pytest.mark.parametrize(
    "name", ["../secret.onnx", "sub/../../secret.onnx", "/etc/hostname", "sub/../good.onnx"]
)
def test_names_do_not_lead_out_of_the_folder(folder: Path, name: str) -> None:
    code, text = refused(folder, name)
    assert code == "path_outside"
    assert "secret" not in text.replace(name, "")


def test_links_do_not_lead_out_of_the_folder(folder: Path) -> None:
    (folder / "link.onnx").symlink_to("../secret.onnx")
    (folder / "out").symlink_to("..")
    (folder / "loop.onnx").symlink_to("loop.onnx")
    (folder / "inside.onnx").symlink_to("good.onnx")
    assert refused(folder, "link.onnx")[0] == "path_outside"
    assert refused(folder, "out/secret.onnx")[0] == "path_outside"
    assert refused(folder, "loop.onnx")[0] == "unreadable_file"
    check_model(folder, "inside.onnx", None)


def test_what_is_no_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.onnx")
    assert refused(folder, "sub") == (
        "not_a_file",
        "field `path` is 'sub', which is a folder; name an ONNX file",
    )
    assert refused(folder, "pipe.onnx")[0] == "not_a_file"
    assert refused(folder, "absent.onnx")[0] == "no_such_file"
    assert refused(folder, "good.onnx/x")[0] == "no_such_file"
    for name in ("", "a\0b", "x" * 2000):
        assert refused(folder, name)[0] == "invalid_path"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (bytes(5000), "zeros"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"no model at all", "no model"),
    ],
)
def test_what_is_no_model_is_refused_with_the_cause(folder: Path, content: bytes, word: str) -> None:
    (folder / "bad.onnx").write_bytes(content)
    code, text = refused(folder, "bad.onnx")
    assert code == "model_refused"
    assert word in text


def test_a_file_that_was_cut_is_refused(folder: Path) -> None:
    content = (folder / "good.onnx").read_bytes()
    (folder / "cut.onnx").write_bytes(content[: len(content) // 2])
    assert refused(folder, "cut.onnx")[0] == "model_refused"


def test_another_digest_is_refused(folder: Path) -> None:
    code, text = refused(folder, "good.onnx", "0" * 64)
    assert code == "wrong_digest"
    assert "0" * 64 in text
    for wrong in ("", "0" * 63, "G" * 64, "A" * 64):
        with pytest.raises(ChangeRefused, match="64 hexadecimal digits"):
            check_digest("good.onnx", "0" * 64, wrong)


@pytest.mark.parametrize("location", ["../secret.onnx", "/etc/hostname", "sub/../../secret.onnx", "out.bin"])
def test_weight_files_do_not_lie_outside(folder: Path, location: str) -> None:
    (folder / "out.bin").symlink_to("../secret.onnx")
    external_data_model(folder / "heavy.onnx", location)
    assert refused(folder, "heavy.onnx")[0] == "path_outside"


def test_a_missing_weight_file_is_named(folder: Path) -> None:
    external_data_model(folder / "heavy.onnx", "weights.bin")
    code, text = refused(folder, "heavy.onnx")
    assert (code, "'weights.bin'" in text) == ("no_such_file", True)
    (folder / "weights.bin").write_bytes(b"1")
    check_model(folder, "heavy.onnx", None)


def test_folders_of_models() -> None:
    configured = {"v1": Path("/a/one.onnx")}
    assert model_folders(configured, None) == {"v1": Path("/a"), "v2": Path("/a")}
    assert model_folders(configured | {"v2": Path("/b/two.onnx")}, None)["v2"] == Path("/b")
    assert set(model_folders(configured, Path("/m")).values()) == {Path("/m")}


# -- memory -----------------------------------------------------------------------------------------


def test_the_smallest_limit_of_the_cgroups_counts(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable:    4000000 kB\n")
    (proc / "self/cgroup").write_text("0::/pod/container\n")
    (groups / "pod/container").mkdir(parents=True)
    assert available_bytes(proc, groups) == 4_000_000 << 10
    for group, limit, used in (("pod", "2000", "500"), ("pod/container", "max", "0")):
        (groups / group / "memory.max").write_text(limit)
        (groups / group / "memory.current").write_text(used)
        (groups / group / "memory.stat").write_text("anon 1\ninactive_file 100\n")
    assert available_bytes(proc, groups) == 2000 - 500 + 100
    assert available_bytes(tmp_path / "absent", groups) is None


def test_a_change_that_does_not_fit_is_refused_with_figures() -> None:
    mib = 1 << 20
    check_room(300 * mib, 20 * mib, 20 * mib, 300 * mib)
    check_room(300 * mib, 20 * mib, 20 * mib, None)
    with pytest.raises(ChangeRefused) as error:
        check_room(300 * mib, 20 * mib, 100 * mib, 399 * mib)
    assert (error.value.code, error.value.status) == ("no_room", 409)
    assert "about 460 MiB" in str(error.value)
    assert "399 MiB are available" in str(error.value)


def test_resident_memory_of_processes() -> None:
    assert resident_bytes([os.getpid()]) > 1 << 20
    assert resident_bytes([os.getpid(), 0]) >= resident_bytes([])


# -- state file -------------------------------------------------------------------------------------


def _state(folder: Path, **extra: Any) -> VersionsState:
    path = folder / "sub" / "good.onnx"
    before = {"v1": ModelFile(folder / "good.onnx", digest_of(folder / "good.onnx"))}
    return VersionsState({"v1": ModelFile(path, digest_of(path))}, before, 12.5, extra)


def test_a_choice_survives(folder: Path) -> None:
    configured = {"v1": folder / "good.onnx"}
    state = _state(folder, split={"v2": 0.1})
    assert StateFile(folder / ".versions.json", configured).write(state)
    assert StateFile(folder / ".versions.json", configured).read() == state
    assert not list(folder.glob("*.new"))


def test_a_choice_is_ignored_when_other_models_are_configured(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / ".versions.json"
    StateFile(path, {"v1": folder / "good.onnx"}).write(_state(folder))
    with caplog.at_level(logging.INFO):
        assert StateFile(path, {"v1": folder / "sub" / "good.onnx"}).read() is None
    assert "other models were configured" in caplog.text


@pytest.mark.parametrize("change", ["missing", "other"])
def test_a_choice_is_ignored_when_its_file_is_another_one(
    folder: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    file = StateFile(folder / ".versions.json", {"v1": folder / "good.onnx"})
    file.write(_state(folder))
    chosen = folder / "sub" / "good.onnx"
    if change == "missing":
        chosen.unlink()
    else:
        chosen.write_bytes(b"other")
    assert file.read() is None
    assert "missing or has another content" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"format": 2}',
        b'{"format": 1}',
        b"[" * 100_000,
        b"\xff",
        b"x" * (2 << 20),
    ],
)
def test_a_damaged_file_is_ignored(folder: Path, text: bytes) -> None:
    (folder / ".versions.json").write_bytes(text)
    assert StateFile(folder / ".versions.json", {"v1": folder / "good.onnx"}).read() is None


def test_unknown_versions_in_the_file_are_refused(folder: Path) -> None:
    path = folder / ".versions.json"
    file = StateFile(path, {"v1": folder / "good.onnx"})
    file.write(_state(folder))
    document = json.loads(path.read_text())
    document["current"]["v3"] = document["current"]["v1"]
    path.write_text(json.dumps(document))
    assert file.read() is None


def test_a_folder_that_cannot_be_written_is_reported_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = StateFile(folder / "absent" / "state.json", {"v1": folder / "good.onnx"})
    assert not file.write(_state(folder))
    assert not file.write(_state(folder))
    assert caplog.text.count("VERSIONS_STATE_FILE") == 1
