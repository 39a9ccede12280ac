"""Runs `streamer push` as users do: as a subprocess, with real videos and a real service.

The live run of the person video takes as long as the video. Therefore it starts before the first test, the
last test checks it, and the other tests push at the same time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import ROOT, shared
from tests.helpers.service import Service

pytestmark = pytest.mark.alone

PERSON = "video/one-by-one-person-detection.mp4"
BOTTLE = "video/bottle-detection.mp4"
KEY = "dummy-key-for-push"
#: Frames of the short form, 29 s at 10 fps; the reference frames among them show the first person.
LIVE_FRAMES = 290
#: Time limit in seconds for a push of 140 s of video on a busy machine; no test here measures speed.
PATIENCE_S = 580.0


@dataclass
class Push:
    """Holds a running or finished `streamer push` and the paths of its output files."""

    process: subprocess.Popen[str]
    lines: Path
    video: Path

    def end(self, timeout_s: float = PATIENCE_S) -> tuple[int, str]:
        """Wait for the end of the push; return its exit code and its standard error."""
        _, shown = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, shown

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.read_text().splitlines()]


def start(folder: Path, source: str, url: str, *arguments: str) -> Push:
    """Start a push that writes its video and its JSON lines into ``folder``."""
    lines, video = folder / "out.jsonl", folder / "out.mp4"
    command = [sys.executable, "-m", "streamer", "push", source, "--url", url]
    command += ["--json", str(lines), "--save", str(video), *arguments]
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment | {"STREAMER_TOKEN": KEY}, stderr=subprocess.PIPE, text=True
    )
    return Push(process, lines, video)


def stop(push: Push) -> None:
    if push.process.poll() is None:
        push.process.kill()
        push.process.communicate()


@pytest.fixture(scope="module", autouse=True)
def whole_live(service: Service, tmp_path_factory: pytest.TempPathFactory, full: bool) -> Iterator[Push]:
    """Start a live push of the person video before the first test; of its whole length with `--full`."""
    limit = [] if full else ["--max-frames", str(LIVE_FRAMES)]
    push = start(tmp_path_factory.mktemp("live"), str(shared(f"data/{PERSON}")), service.ws_url, *limit)
    yield push
    stop(push)


def measured(path: Path) -> tuple[int, float]:
    """Decode a file to its end; return its number of frames and its duration in seconds."""
    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
        return count, container.duration / 1e6


def overlap(one: list[float], other: list[float]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inside / (sum(areas) - inside)


def reference(video: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(shared("data/reference/detections.json").read_text())[
        "yolox_nano"
    ][video]
    return found


def agrees(expected: dict[str, Any], line: dict[str, Any]) -> bool:
    return any(
        found["label"] == expected["label"] and overlap(found["box"], expected["box"]) >= 0.5
        for found in line["detections"]
    )


def check_boxes(video: str, label: str, journal: list[dict[str, Any]], frames: int, reach: int) -> int:
    """Assert that results of the first ``frames`` hold the reference's boxes, up to ``reach`` frames away.

    JPEG may move a score that is close to the threshold to either side of it, so only boxes with a score of
    0.4 or more are checked. Returns how many were.
    """
    results = {line["frame"]: line for line in journal if line["type"] == "result"}
    checked = 0
    for entry in reference(video):
        if entry["frame"] + reach >= frames:
            continue
        near = [results[n] for n in range(entry["frame"] - reach, entry["frame"] + reach + 1) if n in results]
        if reach and not near:  # a live push on a busy machine skips frames
            continue
        assert near, f"no result near frame {entry['frame']}"
        for expected in entry["detections"]:
            if expected["label"] == label and expected["score"] >= 0.4:
                assert any(agrees(expected, line) for line in near), (entry["frame"], expected)
                checked += 1
        if not any(expected["label"] == label for expected in entry["detections"]):
            sure = [
                found for found in near[0]["detections"] if found["label"] == label and found["score"] > 0.5
            ]
            assert sure == [], f"frame {entry['frame']} holds no {label}"
    return checked


def check_ledger(journal: list[dict[str, Any]], frames: int) -> dict[str, Any]:
    """Assert that every captured frame is accounted for, in the summary and line by line."""
    *lines, last = journal
    assert last["type"] == "summary"
    assert last["balance"] == 0
    assert last["captured"] == last["offered"] == frames
    assert last["offered"] == last["sent"] + sum(last["skipped"].values())
    assert last["sent"] == last["results"] + sum(last["dropped"].values()) + sum(last["errors"].values())
    assert sorted(line["seq"] for line in lines) == list(range(1, last["sent"] + 1))
    assert sum(line["type"] == "result" for line in lines) == last["results"]
    return last


@pytest.mark.timeout(600)
def test_mode_all_sends_every_frame_of_the_video(service: Service, tmp_path: Path, full: bool) -> None:
    """Push the first frames of the video, or the whole video with `--full`."""
    source = shared(f"data/{PERSON}")
    frames, duration_s = measured(source)
    limit = []
    if not full:
        frames, duration_s = LIVE_FRAMES, duration_s * LIVE_FRAMES / frames
        limit = ["--max-frames", str(frames)]
    push = start(tmp_path, str(source), service.http_url, "--mode", "all", *limit)
    try:
        code, shown = push.end()
    finally:
        stop(push)
    assert code == 0, shown
    journal = push.journal()
    summary = check_ledger(journal, frames)
    assert summary["results"] == frames
    assert check_boxes(PERSON, "person", journal, frames, reach=0) >= 5
    saved, saved_s = measured(push.video)
    assert saved == frames
    assert abs(saved_s - duration_s) <= 0.1
    assert "ledger     balances" in shown
    assert re.search(r"connected \| \d:\d\d \d+% \| in [\d.]+ fps", shown)


def has_tracks(text: str) -> bool:
    """Return whether a journal has more than 20 lines, and a track among them."""
    return len(text.splitlines()) > 20 and '"track_id"' in text


def test_ctrl_c_leaves_a_playable_file_and_a_balanced_ledger(service: Service, tmp_path: Path) -> None:
    push = start(tmp_path, str(shared(f"data/{BOTTLE}")), service.ws_url, "--track")
    try:
        wait_for(lambda: push.lines.exists() and has_tracks(push.lines.read_text()), push)
        push.process.send_signal(signal.SIGINT)
        code, shown = push.end(60)
    finally:
        stop(push)
    assert code == 130, shown
    journal = push.journal()
    summary = check_ledger(journal, journal[-1]["captured"])
    saved, saved_s = measured(push.video)
    assert saved == summary["captured"]
    assert abs(saved_s - saved * 6 / 179) <= 0.1
    assert any("track_id" in found for line in journal[:-1] for found in line.get("detections", []))
    assert "ledger     balances" in shown


def status_of(url: str) -> str:
    """Return the status that the page of a push shows."""
    with urllib.request.urlopen(f"{url}status", timeout=60) as answer:  # noqa: S310 - loopback
        text: str = answer.read().decode()
    return text


def test_show_serves_a_page_with_the_frames(service: Service, tmp_path: Path) -> None:
    command = ["--show", "--loop", "--fps", "10", "--quiet"]
    push = start(tmp_path, str(shared(f"data/{BOTTLE}")), service.ws_url, *command)
    try:
        assert push.process.stderr is not None
        line = push.process.stderr.readline()
        url = line.removeprefix("preview: ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{12,}/", url)
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - loopback
            page = answer.read().decode()
        assert '<img src="frames"' in page
        with urllib.request.urlopen(f"{url}frames", timeout=60) as answer:  # noqa: S310 - loopback
            assert answer.headers["Content-Type"].startswith("multipart/x-mixed-replace")
            parts = answer.read(100_000)
        assert parts.count(b"--frame\r\n") >= 2
        assert b"\xff\xd8\xff" in parts
        wait_for(lambda: status_of(url).startswith("connected | "), push)
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url.rsplit("/", 2)[0] + "/", timeout=60)  # noqa: S310 - loopback
        push.process.send_signal(signal.SIGTERM)
        code, _ = push.end(60)
    finally:
        stop(push)
    assert code == 143
    assert push.journal()[-1]["skipped"].get("fps", 0) > 0


def test_the_page_stays_after_the_end_of_the_source_until_ctrl_c(service: Service, tmp_path: Path) -> None:
    push = start(tmp_path, str(shared("data/images")), service.ws_url, "--max-frames", "2", "--show")
    try:
        assert push.process.stderr is not None
        stays = next(line for line in push.process.stderr if "until Ctrl-C" in line)
        url = stays.split()[4]
        wait_for(lambda: status_of(url).startswith("the source has ended"), push)
        with urllib.request.urlopen(f"{url}frames", timeout=60) as answer:  # noqa: S310 - loopback
            assert b"\xff\xd8\xff" in answer.read(2000)  # the last frame
        assert push.process.poll() is None
        push.process.send_signal(signal.SIGINT)
        code, _ = push.end(60)
    finally:
        stop(push)
    assert code == 0
    check_ledger(push.journal(), 2)


def test_limits_end_the_run_and_images_are_sent_in_full(service: Service, tmp_path: Path) -> None:
    push = start(tmp_path, str(shared("data/images")), service.ws_url, "--max-frames", "2", "--conf", "0.5")
    try:
        code, shown = push.end(60)
    finally:
        stop(push)
    assert code == 0, shown
    journal = push.journal()
    check_ledger(journal, 2)
    assert [line["name"] for line in journal[:-1]] == ["bus.jpg", "volleyball.jpg"]
    assert measured(push.video)[0] == 2
    short = start(
        tmp_path, str(shared(f"data/{BOTTLE}")), service.ws_url, "--duration", "1", "--max-side", "320"
    )
    try:
        code, shown = short.end(60)
    finally:
        stop(short)
    assert code == 0, shown
    assert check_ledger(short.journal(), 30)["results"] > 0
    assert abs(measured(short.video)[1] - 1.0) <= 0.1
    widths = {line["width"] for line in short.journal() if line["type"] == "result"}
    assert widths == {640}


@pytest.mark.parametrize(
    ("source", "arguments", "code", "says"),
    [
        ("nosuch.mp4", [], 2, "does not exist"),
        ("README.md", [], 4, "README.md: cannot be opened"),
        (
            f"rtsp://admin:{KEY}@127.0.0.1:9/live?token={KEY}",
            ["--no-reconnect"],
            4,
            r"rtsp://\*\*\*@127.0.0.1:9",
        ),
        (f"rtsp://admin:{KEY}@1@127.0.0.1:9/live", [], 2, "write `@` as `%40`"),
        ("0", ["--size", "1280"], 2, "write width and height as 1280x720"),
        ("IMAGES", ["--url", "ws://127.0.0.1:9", "--no-reconnect"], 3, "Connection refused"),
        ("IMAGES", ["--url", f"http://me:{KEY}@127.0.0.1:9", "--give-up-after", "0.7"], 3, "refused"),
        ("IMAGES", ["--url", "SERVICE/v9/stream"], 3, "no such model version"),
        ("IMAGES", ["--url", "SERVICE", "--classes", "buss"], 2, "'buss'"),
        ("IMAGES", ["--url", "SERVICE", "--save", "x.gif"], 2, r"\.mp4"),
        ("IMAGES", ["--url", "SERVICE", "--json", "/no/such/folder/x"], 5, "--json"),
        ("IMAGES", ["--quality", "0"], 2, "quality"),
        ("IMAGES", ["--fps", "-1"], 2, "fps"),
    ],
)
def test_exit_codes_and_that_no_secret_is_shown(
    service: Service, source: str, arguments: list[str], code: int, says: str
) -> None:
    source = str(shared("data/images")) if source == "IMAGES" else source
    words = [word.replace("SERVICE", service.ws_url) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "push", source, *words],
        cwd=ROOT,
        env=os.environ | {"STREAMER_TOKEN": KEY},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert re.search(says, done.stderr)
    assert KEY not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(600)
def test_the_person_video_live(whole_live: Push, full: bool) -> None:
    """Assert that a push in real time has persons in the right frames and a file of the right length."""
    frames, duration_s = measured(shared(f"data/{PERSON}"))
    if not full:
        frames, duration_s = LIVE_FRAMES, duration_s * LIVE_FRAMES / frames
    code, shown = whole_live.end()
    assert code == 0, shown
    journal = whole_live.journal()
    summary = check_ledger(journal, frames)
    assert summary["results"] > 0
    # On a busy machine some of the seven frames that are compared have no result near them.
    assert check_boxes(PERSON, "person", journal, frames, reach=3) >= 3
    saved, saved_s = measured(whole_live.video)
    assert saved == frames
    assert abs(saved_s - duration_s) <= 0.2
    assert KEY not in shown


def wait_for(true: Any, push: Push, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert push.process.poll() is None, "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.05)
