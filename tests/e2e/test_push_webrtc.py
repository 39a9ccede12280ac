"""Runs `streamer push --transport webrtc` as users do: as a subprocess, with a real video and service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import ROOT, shared
from tests.helpers.service import Service

pytestmark = pytest.mark.alone


def push(*arguments: str, timeout_s: float = 120) -> tuple[int, str]:
    """Run a push; return its exit code and its standard error."""
    command = [sys.executable, "-m", "streamer", "push", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    return done.returncode, done.stderr


def test_a_video_goes_as_video_and_boxes_come_back_to_its_own_frames(
    service: Service, tmp_path: Path
) -> None:
    video = shared("data/video/one-by-one-person-detection.mp4")
    lines, saved = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    code, shown = push(
        str(video),
        *("--transport", "webrtc", "--url", f"{service.ws_url}/v1/stream", "--duration", "12"),
        *("--json", str(lines), "--save", str(saved), "--max-side", "640", "--conf", "0.4"),
    )
    assert code == 0, shown
    assert f"connected to {service.http_url}/v1/webrtc" in shown
    *entries, summary = [json.loads(line) for line in lines.read_text().splitlines()]
    results = [entry for entry in entries if "boxes" in entry or entry.get("type") == "result"]
    assert len(results) > 50, shown
    assert find(summary, "balance") == 0
    assert find(summary, "results") == len(results)
    # Most frames that were sent got a result, and the saved video has the size of the source, which is larger
    # than the frames that were sent.
    assert len(results) > 0.8 * find(summary, "sent")
    with av.open(str(saved)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == (768, 432)
        assert sum(1 for _ in container.decode(stream)) > 100
    assert sum("person" in json.dumps(entry) for entry in results) > 10


def find(entry: Any, name: str) -> Any:
    """Return the first value of a field at any depth of nested maps, or None."""
    if isinstance(entry, dict):
        if name in entry:
            return entry[name]
        for value in entry.values():
            found = find(value, name)
            if found is not None:
                return found
    return None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("sample", "--transport", "webrtc", "--mode", "all"), 2, "--mode all needs --transport websocket"),
        (("sample", "--transport", "carrier-pigeon"), 2, "expected one of 'websocket', 'webrtc'"),
        (
            ("sample", "--transport", "webrtc", "--url", "http://127.0.0.1:9", "--no-reconnect"),
            3,
            "cannot reach http://127.0.0.1:9/v1/webrtc",
        ),
    ],
)
def test_what_cannot_work_is_said(arguments: tuple[str, ...], code: int, words: str) -> None:
    found, shown = push(*arguments)
    assert (found, words in shown) == (code, True), shown


def test_a_model_version_that_is_not_there_is_refused_for_good(service: Service) -> None:
    code, shown = push("sample", "--transport", "webrtc", "--url", f"{service.http_url}/v7/webrtc")
    assert (code, "v7" in shown) == (3, True), shown
