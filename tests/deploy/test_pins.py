"""Tests that actions and images of others are pinned, and which images still have a tag alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from deploy import pins

#: Images without a digest: their tags move with every security fix, so the registries must be asked for it.
#: Run `make pins` where they can be reached, and remove the images here.
NO_DIGEST_YET = {
    "docker.io/library/python:3.11-bookworm",
    "docker.io/library/python:3.11-slim-bookworm",
    "docker.io/nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04",
    "docker.io/nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04",
}
_ONE, _TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def test_all_images_of_others_are_pinned_but_those_listed_here() -> None:
    found = set().union(*(pins.unpinned(path.read_text()) for path in pins.files()))
    assert found == NO_DIGEST_YET


def test_every_action_is_pinned_to_a_commit_and_says_its_version() -> None:
    uses = [
        line.strip().removeprefix("- ").removeprefix("uses: ")
        for path in pins.files()
        for line in path.read_text().splitlines()
        if "uses: " in line and "uses: ./" not in line
    ]
    assert len(uses) >= 10
    for use in uses:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use
    commits: dict[str, set[str]] = {}
    for use in uses:
        commits.setdefault(use.partition("@")[0], set()).add(use)
    assert all(len(versions) == 1 for versions in commits.values()), "one version of each action"


def test_digests_are_added_and_renewed() -> None:
    text = f"A=docker.io/library/python:3.11\nB: ghcr.io/x/y:1@{_TWO}\nC: example.org/z:1\n"
    pinned = pins.pin(text, lambda _: _ONE)
    assert pinned == f"A=docker.io/library/python:3.11@{_ONE}\nB: ghcr.io/x/y:1@{_ONE}\nC: example.org/z:1\n"
    assert pins.unpinned(text) == {"docker.io/library/python:3.11"}
    assert pins.unpinned(pinned) == set()


@pytest.mark.parametrize(("answer", "code"), [(_ONE, 0), ("not a digest", 1)])
def test_files_change_only_if_the_registry_answers_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    def answered(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=f"{answer}\n")

    text = "FROM docker.io/library/python:3.11\n"
    (tmp_path / "Dockerfile").write_text(text)
    monkeypatch.setattr(pins, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", answered)
    assert pins.main([]) == code
    expected = text if code else f"FROM docker.io/library/python:3.11@{_ONE}\n"
    assert (tmp_path / "Dockerfile").read_text() == expected


def test_an_unknown_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert pins.main(["check"]) == 2
    assert "allowed are no argument and `list`" in capsys.readouterr().err
