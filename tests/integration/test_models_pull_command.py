"""``streamer models pull`` as a process: two at once, Ctrl-C, kills, exit codes."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.helpers.model_pulls import BODY, finish, names, start
from tests.helpers.release_server import Fault, Server


def registry_for(server: Server, folder: Path) -> Path:
    """Write a registry with one entry."""
    model = {
        "name": "tiny",
        "title": "Tiny",
        "family": "yolo",
        "input": {"width": 64, "height": 64},
        "classes": ["ball"],
        "licence": "MIT",
        "bytes": len(server.body),
        "sha256": server.sha256,
        "url": server.url,
        "source": server.url,
    }
    path = folder / "catalogue.json"
    path.write_text(json.dumps({"version": 1, "models": [model]}))
    return path


async def test_two_pulls_of_one_model_share_one_download(server: Server, tmp_path: Path) -> None:
    both_have_begun = asyncio.Event()
    server.faults = [Fault(silent_after=100_000, resume=both_have_begun)]
    arguments = ("pull", "tiny", "--to", str(tmp_path), "--catalogue", str(registry_for(server, tmp_path)))

    async def run() -> tuple[int, str, str]:
        process = await start(*arguments)
        assert process.stderr is not None
        shown = b""
        while line := await process.stderr.readline():
            shown += line
            if b"another process is downloading it" in line:
                both_have_begun.set()
        code, out, _ = await finish(process)
        return code, out, shown.decode()

    async with asyncio.timeout(120):
        outcomes = await asyncio.gather(run(), run())
    assert [code for code, _, _ in outcomes] == [0, 0]
    assert [out for _, out, _ in outcomes] == [f"{tmp_path / 'tiny.onnx'}\n"] * 2
    assert both_have_begun.is_set()
    assert "is installed already, its sha256 is as expected" in "".join(shown for _, _, shown in outcomes)
    assert len(server.seen) == 1
    assert (tmp_path / "tiny.onnx").read_bytes() == BODY
    assert names(tmp_path) == ["catalogue.json", "tiny.json", "tiny.onnx"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
async def test_the_received_part_survives_ctrl_c_and_a_kill(
    server: Server, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    server.faults = [Fault(silent_after=100_000)]
    arguments = ("pull", "tiny", "--to", str(tmp_path), "--catalogue", str(registry_for(server, tmp_path)))
    process = await start(*arguments)
    part = tmp_path / "tiny.onnx.part"
    async with asyncio.timeout(120):
        while not part.exists() or part.stat().st_size < 100_000:
            await asyncio.sleep(0.02)
    process.send_signal(number)
    found, out, error = await finish(process)
    assert (found, out) == (code, "")
    if number is signal.SIGINT:
        assert error.splitlines()[-1] == "tiny: stopped; the same command resumes it"
    assert part.stat().st_size == 100_000
    found, out, error = await finish(await start(*arguments))
    assert (found, out) == (0, f"{tmp_path / 'tiny.onnx'}\n")
    assert server.seen[1].headers["range"] == "bytes=100000-"
    assert (tmp_path / "tiny.onnx").read_bytes() == BODY
    assert "licence MIT" in error
    assert "MODEL_V1_PATH=" in error


async def test_every_failure_has_its_own_exit_code(server: Server, tmp_path: Path) -> None:
    catalogue = registry_for(server, tmp_path)
    to = ("--to", str(tmp_path / "models"), "--catalogue", str(catalogue))

    async def outcome(*arguments: str) -> tuple[int, str]:
        code, _, error = await finish(await start("pull", *arguments))
        return code, error

    server.faults = [Fault(status=404)]
    (code, error), unknown, wrong = await asyncio.gather(
        outcome("tiny", *to), outcome("tiny2", *to), outcome("tiny", *to, "--sha256", "abc")
    )
    assert (code, error.count("\n")) == (3, 1)
    assert error.startswith("streamer models pull: ")
    assert unknown == (2, f"streamer models pull: NAME 'tiny2' is not in {catalogue}; did you mean tiny?\n")
    assert wrong[0] == 2
    assert "--sha256: expected 64 hexadecimal digits; found 'abc'" in wrong[1]
    server.body = bytes(len(BODY))
    code, error = await outcome("tiny", *to)
    assert code == 6
    assert "expected sha256" in error
