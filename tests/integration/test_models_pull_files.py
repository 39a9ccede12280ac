"""What ``streamer models pull`` does with files that exist, cannot be verified, or do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from inference.models.manifest import Manifest, read_manifest
from streamer.model_zoo.download_url import CannotWrite, NotTrusted, WrongFile
from tests.helpers.model_factory import null_model
from tests.helpers.model_pulls import BODY, QUICK, Report, entry_of, get, names
from tests.helpers.release_server import Server


async def test_an_installed_file_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    await get(entry_of(server), tmp_path)
    assert (await get(entry_of(server), tmp_path)).was_installed
    assert len(server.seen) == 1
    (tmp_path / "tiny.onnx").write_bytes(b"another")
    with pytest.raises(CannotWrite, match=r"tiny\.onnx: another file.*--force"):
        await get(entry_of(server), tmp_path)
    assert (tmp_path / "tiny.onnx").read_bytes() == b"another"
    assert not (await get(entry_of(server), tmp_path, replace(QUICK, force=True))).was_installed
    assert (tmp_path / "tiny.onnx").read_bytes() == BODY


async def test_an_existing_manifest_is_kept_and_its_problems_are_reported(
    server: Server, tmp_path: Path
) -> None:
    report = Report()
    (tmp_path / "tiny.json").write_text('{"labels": ["mine"]}')
    await get(entry_of(server), tmp_path, report=report)
    assert read_manifest(tmp_path / "tiny.onnx") == Manifest(labels=("mine",))
    assert "tiny: tiny.json exists and is not changed" in report.lines
    (tmp_path / "tiny.onnx").unlink()
    (tmp_path / "tiny.json").write_text(json.dumps({"sha256": "0" * 64}))
    await get(entry_of(server), tmp_path, report=report)
    assert "its `sha256` belongs to another file" in report.lines[-1]


async def test_a_file_without_a_checksum_needs_trust(server: Server, tmp_path: Path) -> None:
    server.body = null_model(tmp_path / "source.onnx", size=64).read_bytes()
    folder = tmp_path / "models"
    unknown = entry_of(server, sha256=None, size=None)
    with pytest.raises(NotTrusted, match=r"no checksum.*https://host/page.*--trust"):
        await get(unknown, folder)
    assert server.seen == []
    report = Report()
    pulled = await get(unknown, folder, replace(QUICK, trust=True), report)
    assert f"tiny: not verified; its sha256 is {server.sha256}" in report.lines
    # The checksum in the manifest lets the service notice when the file changes.
    assert read_manifest(pulled.path).sha256 == server.sha256
    assert (await get(unknown, folder, replace(QUICK, trust=True))).was_installed


async def test_a_checksum_from_the_command_line_is_verified(server: Server, tmp_path: Path) -> None:
    unknown = entry_of(server, sha256=None)
    with pytest.raises(WrongFile):
        await get(unknown, tmp_path, replace(QUICK, sha256="0" * 64))
    assert (await get(unknown, tmp_path, replace(QUICK, sha256=server.sha256))).path.exists()
    with pytest.raises(NotTrusted, match="one of them belongs to another file"):
        await get(entry_of(server), tmp_path, replace(QUICK, sha256="0" * 64))


@pytest.mark.parametrize(
    ("body", "found"),
    [(b"<!DOCTYPE html><p>log in</p>", "a web page"), (b"\x08\x07hello", "not ONNX"), (bytes(5000), "zeros")],
)
async def test_trust_does_not_accept_a_file_that_is_no_model(
    server: Server, tmp_path: Path, body: bytes, found: str
) -> None:
    server.body = body
    with pytest.raises(WrongFile, match=f"expected an ONNX file; found .*{found}"):
        await get(entry_of(server, sha256=None, size=None), tmp_path, replace(QUICK, trust=True))
    assert names(tmp_path) == []


async def test_a_full_disk_is_reported_before_the_body_is_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=(16 << 20) + len(BODY) - 1))
    with pytest.raises(CannotWrite, match=f"{len(BODY)} more bytes are needed"):
        await get(entry_of(server), tmp_path)
    assert names(tmp_path) == []


async def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="file"):
        await get(entry_of(server), tmp_path / "file" / "models")
    assert server.seen == []
