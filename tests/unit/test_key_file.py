"""Tests what key files may contain, how errors are reported, and that changes apply during operation."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.access.identity import Quotas, Scope
from streamer.access.key_ring import BadKeyFile, KeyRing, digest_of, make_key, parse_keys, read_key_file
from streamer.cli.main import main

DIGEST = digest_of("test-key")
FULL = f"""
[[keys]]
name = "camera-7"
sha256 = "{DIGEST}"
scopes = ["predict", "stream"]
expires = 2999-01-01T00:00:00Z
quotas = {{ requests_per_s = 5, streams = 4, sessions = 2, bytes_per_s = 2e6, weight = 2 }}

[[keys]]
name = "boss"
sha256 = "{digest_of("test-key-2")}"
scopes = ["admin"]
"""


def test_toml_and_json_say_the_same() -> None:
    found = parse_keys(FULL.encode())
    camera = found[DIGEST]
    assert camera.name == "camera-7"
    assert camera.scopes == {Scope.PREDICT, Scope.STREAM}
    assert camera.quotas == Quotas(5, 4, 2, 2e6, 2)
    assert camera.until == 32472144000
    assert not camera.anonymous
    assert parse_keys(json.dumps(tomllib.loads(FULL), default=lambda day: day.isoformat()).encode()) == found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[[keys]]", "[[kees]]"), "`keys`"),
        (('name = "boss"', 'name = "a b"'), "`keys[1].name`"),
        (('name = "boss"', 'name = "addr:1"'), "`keys[1].name`"),
        (('name = "boss"', 'name = "camera-7"'), "two keys of the name 'camera-7'"),
        ((DIGEST, "test-key"), "`keys[0].sha256`"),
        ((digest_of("test-key-2"), DIGEST), "twice"),
        (('["admin"]', '["root"]'), "`keys[1].scopes[0]` is 'root'"),
        (('["admin"]', "[]"), "`keys[1].scopes`"),
        (("2999-01-01T00:00:00Z", "2999-01-01T00:00:00"), "`keys[0].expires`"),
        (("streams = 4", "streams = -1"), "`keys[0].quotas.streams` is -1"),
        (("weight = 2", "weight = 0"), "`keys[0].quotas.weight`"),
        (("weight = 2", "weigth = 2"), "`keys[0].quotas.weigth`"),
        (("scopes = [", "scopes = [["), "neither JSON nor TOML"),
    ],
)
def test_what_is_wrong_is_named_without_the_digest(change: tuple[str, str], words: str) -> None:
    assert change[0] in FULL
    with pytest.raises(BadKeyFile) as refused:
        parse_keys(FULL.replace(*change).encode())
    assert words in str(refused.value)
    assert DIGEST not in str(refused.value)
    assert "'test-key'" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        '[[keys]]\nname = "a"\nsha256 = "{digest}"\nscopes = ["stream"]\nkey = "{key}"',
        '[[keys]]\nname = "a"\nsha256 = "{key}"\nscopes = ["stream"]',
        '[[keys]]\nname = "{key} "\nsha256 = "{digest}"\nscopes = ["stream"]',
        '[[keys]]\nname = "a"\nsha256 = ["{key}"]\nscopes = ["stream"]',
        'keys = ["{key}"]',
        'keys = "{key}"',
        'key = "{key}"',
        "{key}",
        '{{"keys": ["{key}"]}}',
        '{{"{key}": 1}}',
    ],
)
def test_a_key_that_was_put_into_the_file_itself_is_not_repeated(text: str) -> None:
    """The file should hold digests. If it holds a key instead, the error must not put the key in the log."""
    with pytest.raises(BadKeyFile) as refused:
        parse_keys(text.format(key="rtv_canary", digest=DIGEST).encode())
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"{}", b'{"keys": 5}', b'{"keys": [1]}'])
def test_what_is_no_key_file_is_refused(content: bytes) -> None:
    with pytest.raises(BadKeyFile):
        parse_keys(content)


def test_a_made_key_opens_what_its_entry_says() -> None:
    for form in ("toml", "json"):
        made = make_key("line-4", ["stream"], None, {"streams": 3, "weight": 2.5})
        text = made.line(form)
        assert made.key not in text
        content = text if form == "toml" else f'{{"keys": [{text}]}}'
        identity = parse_keys(content.encode())[digest_of(made.key)]
        assert (identity.name, identity.until) == ("line-4", None)
        assert identity.scopes == {Scope.STREAM}
        assert (identity.quotas.streams, identity.quotas.weight) == (3, 2.5)


def test_the_command_prints_the_key_once_and_the_entry_for_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["keys", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    code, entry, shown = run("new", "camera-7", "--scopes", "stream,admin", "--days", "30", "--streams", "2")
    assert code == 0
    key = shown.splitlines()[-1]
    assert key.startswith("rtv_")
    assert key not in entry
    file = tmp_path / "keys.toml"
    file.write_text(entry + run("new", "other")[1])
    identity = parse_keys(file.read_bytes())[digest_of(key)]
    assert identity.until == pytest.approx(time.time() + 30 * 86_400, abs=120)
    assert run("check", str(file))[1] == "camera-7: admin, stream\nother: predict, stream\n"
    for arguments in (("new", "a b"), ("new", "a", "--scopes", "x"), ("check", str(tmp_path / "none"))):
        code, out, shown = run(*arguments)
        assert (code, out) == (2, "")
        assert shown.startswith("streamer keys ")


async def test_a_ring_follows_its_file_and_survives_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streamer.access.key_ring.POLL_S", 0.02)
    file = tmp_path / "keys.toml"
    file.write_text(FULL)
    ring = KeyRing(("settled",), file, tmp_path)
    ring.start()

    async def until(reached: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not reached():
                await asyncio.sleep(0.02)

    def found(key: str) -> str | None:
        identity = ring.find(key)
        return None if identity is None else identity.name

    assert (found("test-key"), found("settled"), found("no")) == ("camera-7", "api_keys:1", None)
    # The length differs, because both versions may have the same time of modification.
    file.write_text(FULL.replace("camera-7", "camera-eight"))
    await until(lambda: found("test-key") == "camera-eight")
    assert not ring.is_still_valid(parse_keys(FULL.encode())[DIGEST], Scope.STREAM), "it has another name now"
    file.write_text("broken [")
    await until(lambda: ring.fault)
    assert found("test-key") == "camera-eight"
    await until(lambda: "the keys stay as they were" in caplog.text)
    # A worker that starts now uses the last valid keys, as the other workers do.
    newcomer = KeyRing((), file, tmp_path)
    assert newcomer.find("test-key") is not None
    assert newcomer.fault
    file.unlink()
    await until(lambda: "cannot be read" in ring.fault)
    assert found("test-key") == "camera-eight"
    file.write_text(FULL.replace("2999", "2001"))
    await until(lambda: not ring.fault)
    assert (found("test-key"), found("test-key-2")) == (None, "boss"), "expired"
    await ring.close()


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (("camera-7", "camera-7"), True),
        (("streams = 4", "streams = 5"), True),
        (('"predict", "stream"', '"stream"'), True),
        ((DIGEST, digest_of("test-key-new")), False),
        (('"predict", "stream"', '"predict"'), False),
        (("2999-01-01", "2001-01-01"), False),
        (("camera-7", "camera-8"), False),
    ],
)
def test_a_key_holds_as_long_as_it_is_the_same_and_for_streams(
    tmp_path: Path, change: tuple[str, str], *, holds: bool
) -> None:
    """An identity whose key was replaced is not valid, even if the new key has the same name."""
    file = tmp_path / "keys.toml"
    file.write_text(FULL)
    shown = KeyRing((), file, tmp_path).find("test-key")
    assert shown is not None
    file.write_text(FULL.replace(*change))
    ring = KeyRing(("settled",), file, tmp_path)
    assert ring.is_still_valid(shown, Scope.STREAM) is holds
    ticket_of_an_earlier_release = dataclasses.replace(shown, key="")
    assert ring.is_still_valid(ticket_of_an_earlier_release, Scope.STREAM) is (holds or change[0] == DIGEST)
    settled = ring.find("settled")
    assert settled is not None
    assert ring.is_still_valid(settled, Scope.STREAM)


def test_a_key_file_has_an_end(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(b" " * (4 << 20) + b"x")
    with pytest.raises(BadKeyFile, match="more than"):
        read_key_file(file)
    with pytest.raises(BadKeyFile, match="cannot be read"):
        read_key_file(tmp_path)
