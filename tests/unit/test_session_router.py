"""Requests and their keys go only to sockets in the replica's folder, and only while this user owns it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from streamer.access.key_ring import KeyRing, digest_of
from streamer.config.replica_addresses import Replicas
from streamer.replicas.session_router import SessionRouter, is_private

SESSION = "1-" + "a" * 24


def owners(folder: Path) -> SessionRouter:
    return SessionRouter(0, 2, folder, Replicas(), lambda _: None)


async def test_a_folder_that_others_can_write_to_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "replica"
    folder.mkdir(mode=0o700)
    made = owners(folder)
    try:
        place = await made._find(SESSION, hopped=False)
        assert place is not None
        assert not place.in_other_replica
        folder.chmod(0o777)
        assert await made._find(SESSION, hopped=False) is None
        folder.chmod(0o700)
        monkeypatch.setattr("os.geteuid", lambda: folder.stat().st_uid + 1)
        assert await made._find(SESSION, hopped=False) is None, "another user has made it anew"
    finally:
        await made.close()


def test_only_a_folder_itself_counts(tmp_path: Path) -> None:
    folder = tmp_path / "replica"
    assert not is_private(folder)
    folder.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(folder)
    assert is_private(folder)
    assert not is_private(tmp_path / "link")


def test_keys_of_a_copy_that_another_user_has_made_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(f'[[keys]]\nname = "a"\nsha256 = "{digest_of("dummy-key")}"\nscopes = ["admin"]\n')
    assert KeyRing((), file, tmp_path).find("dummy-key") is not None
    file.write_text("broken [")
    assert KeyRing((), file, tmp_path).find("dummy-key") is not None, "by the copy"
    user = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: user + 1)
    assert KeyRing((), file, tmp_path).find("dummy-key") is None
