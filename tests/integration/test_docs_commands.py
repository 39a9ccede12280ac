"""Every program and every command that README and the pages for users show runs, and does what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.documented import Block, Reader, blocks, make_workplace
from tests.helpers.service import ROOT, Service

PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("client",)),
]
#: Commands that do not run here, by a pattern, and what tries them instead.
ELSEWHERE = {
    r"^make (serve|test)\b": "tests/deploy/test_install.py, and CI itself",
    r"^docker ": "tests/deploy/test_image.py and test_compose.py",
    r"^streamer push 0 |^\.venv/bin/streamer push 0 ": "a camera; tests/unit/test_client_sources.py",
    r" --show$": "a page that stays until Ctrl-C; tests/e2e/test_push.py",
    r"rtsp://": "a camera; tests/unit/test_client_sources.py",
}


def shell_commands(page: Path) -> list[str]:
    return [command for block in blocks(page, "sh") for command in block.commands()]


def is_tried_elsewhere(command: str) -> bool:
    return any(re.search(pattern, command) for pattern in ELSEWHERE)


def identify(value: Path | Block) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else value.place


@pytest.fixture(scope="module")
def bundled() -> Iterator[Service]:
    """What `make serve` starts: the service with the models of the project."""
    with Service({"STREAM_MIN_FPS": "0"}, bundled=True) as service:
        yield service


@pytest.fixture
def reader(bundled: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.delenv("DISPLAY", raising=False)
    return Reader(make_workplace(tmp_path), f"127.0.0.1:{bundled.port}", monkeypatch)


@pytest.mark.parametrize(
    "program", [block for page in PAGES for block in blocks(page, "python")], ids=identify
)
def test_every_program_runs_to_its_end(
    reader: Reader, program: Block, capsys: pytest.CaptureFixture[str]
) -> None:
    reader.run_program(program)
    shown = capsys.readouterr().out
    if "print(" in program.text:
        assert re.search(r"barcode|qr_code|aztec|data_matrix|pdf417|\d", shown), shown


@pytest.mark.parametrize("page", [page for page in PAGES if shell_commands(page)], ids=identify)
def test_every_command_succeeds(reader: Reader, page: Path) -> None:
    for command in shell_commands(page):
        if not is_tried_elsewhere(command):
            assert reader.run_command(command) == 0, command


def test_what_runs_elsewhere_is_shown_somewhere() -> None:
    shown = [command for page in PAGES for command in shell_commands(page)]
    for pattern in ELSEWHERE:
        assert any(re.search(pattern, command) for command in shown), pattern
    assert sum(not is_tried_elsewhere(command) for command in shown) > 10
