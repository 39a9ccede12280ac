"""Finds the programs and commands that a page of the documentation shows, and runs them as a reader would.

All commands of a page run in order in one folder, so a command may use files that earlier ones wrote. The
pages use the default address of the service, ``127.0.0.1:8000``; this module replaces it by the address of
the service under test.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

import streamer.client.oneshot as client_http
from streamer.cli.main import main
from tests.helpers.candidates import store_sample
from tests.helpers.model_factory import colour_model
from tests.helpers.service import ROOT
from tests.unit.images import encode, scene
from tests.unit.label_exports import (
    Box,
    annotation,
    region,
    task,
    write_cvat_coco,
    write_tasks,
    write_ultralytics,
)

DEFAULT_ADDRESS = "127.0.0.1:8000"
#: Time limit in seconds of one shell command.
PATIENCE_S = 150.0
#: A fenced block, which may be indented or inside a block quote.
_BLOCK = re.compile(r"^((?:> ?)*[ ]*)```(\w*)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
#: Characters that only a shell understands.
_SHELL = re.compile(r"[|<>;&$]")
#: Commands of `streamer` that use the default address of the service unless `--url` names another.
_ADDRESSED = ("predict", "push")


@dataclass(frozen=True, slots=True)
class Block:
    """Holds a fenced block of a page, without the indentation or quote marks of the block."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """Location as ``file:line``, which editors can open."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """Return the commands of a shell block, with continued lines joined and comments removed."""
        joined = re.sub(r"\\\n|(?<=\|)\n", " ", self.text)
        found = (re.sub(r"\s+#(?!\d).*$", "", line).strip() for line in joined.splitlines())
        return [re.sub(r"\s{2,}", " ", line) for line in found if line and not line.startswith("#")]


def blocks(page: Path, language: str) -> list[Block]:
    """Return the blocks of a page that are in this language, in page order."""
    text = page.read_text()
    return [
        Block(page, text.count("\n", 0, found.start()) + 2, found[2], _without(found[1], found[3]))
        for found in _BLOCK.finditer(text)
        if found[2] == language
    ]


def _without(prefix: str, text: str) -> str:
    return "".join(line.removeprefix(prefix) for line in text.splitlines(keepends=True))


def make_workplace(folder: Path) -> Path:
    """Create the files that the pages mention in ``folder``; return the folder.

    These are images, a video, a model, a collected sample, and links to the data and examples of the project.
    """
    leaflet, belt = (cv2.imread(str(ROOT / "data" / "stills" / name)) for name in ("leaflet.jpg", "belt.jpg"))
    assert leaflet is not None
    assert belt is not None
    small = cv2.resize(belt, (320, 180))
    (folder / "photos").mkdir()
    for name, image in {
        "photo.jpg": leaflet,
        "other.png": small,
        "a.jpg": belt,
        "b.png": small,
        "c.webp": small,
        "photos/1.jpg": belt,
        "photos/2.jpg": small,
    }.items():
        assert cv2.imwrite(str(folder / name), image), name
    _write_video(folder / "video.mp4", small)
    # The client prefers a file of this name to the bundled clip, which lasts nine seconds.
    shutil.copy(folder / "video.mp4", folder / "sample")
    colour_model(folder / "best.onnx")
    name = store_sample(folder / "samples", encode(scene()))
    _write_labels(folder, f"gate_2027-01-15_{Path(name).stem[:20]}.jpg")
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def _write_labels(folder: Path, sample: str) -> None:
    """Write exports of labelling tools: of the collected sample, and of three photographs."""
    box: Box = ("barcode", 10, 10, 60, 70)
    write_tasks(folder / "project-3.json", task(1, f"/data/upload/3/0a1b2c3d-{sample}", _of_sample(box)))
    labels = {f"p{number}.png": [box] for number in range(3)}
    write_cvat_coco(folder / "cvat.zip", labels, ["barcode", "qr_code"])
    write_ultralytics(folder / "labelled", {"train": labels}, ["barcode", "qr_code"])


def _of_sample(box: Box) -> dict[str, Any]:
    """Return an annotation of the collected sample, which has 160 x 96 pixels."""
    return annotation([]) | {"result": [region(box) | {"original_height": 96}]}


def _write_video(path: Path, image: Any) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        for step in range(12):
            shifted = np.ascontiguousarray(np.roll(image, step, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shifted, format="bgr24")))
        container.mux(stream.encode(None))


@dataclass(frozen=True, slots=True)
class Reader:
    """Runs what a page shows in ``folder``, with a service at ``address`` (host:port)."""

    folder: Path
    address: str
    monkeypatch: pytest.MonkeyPatch

    def run_program(self, block: Block) -> None:
        """Run a Python program; its exceptions propagate and fail the test."""
        self.monkeypatch.chdir(self.folder)
        for function in (client_http.predict, client_http.predict_async, client_http.predict_many):
            # Programs in the documentation rely on the default of `url`, so change that default.
            defaults = (function.__kwdefaults__ or {}) | {"url": f"http://{self.address}"}
            self.monkeypatch.setattr(function, "__kwdefaults__", defaults)
        code = compile(self._addressed(block.text), block.place, "exec")
        exec(code, {"__name__": "__main__"})  # noqa: S102 - a program of our own documentation

    def run_command(self, command: str) -> int:
        """Run a shell command and return its exit code.

        If a `streamer` command needs no shell, it runs in this process, which saves the start of a new one.
        """
        text = self._addressed(command.replace(".venv/bin/streamer", "streamer"))
        text = text.replace("https://example.com/photo.jpg", (self.folder / "photo.jpg").as_uri())
        words = shlex.split(text)
        if words[0] == "streamer" and not _SHELL.search(text):
            self.monkeypatch.chdir(self.folder)
            return main([*words[1:], *(self._url(words[1]))] if "--url" not in words else words[1:])
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{self._functions()}\n{text}"],
            cwd=self.folder,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode

    def _addressed(self, text: str) -> str:
        return text.replace(DEFAULT_ADDRESS, self.address)

    def _url(self, command: str) -> list[str]:
        return ["--url", f"http://{self.address}"] if command in _ADDRESSED else []

    def _functions(self) -> str:
        """Return shell functions that replace the commands ``python`` and ``streamer``."""
        python = shlex.quote(sys.executable)
        return (
            f'python() {{ {python} "$@"; }}; '
            f'streamer() {{ case "$1 $*" in *--url*) {python} -m streamer "$@";; '
            f'predict*|push*) {python} -m streamer "$@" --url http://{self.address};; '
            f'*) {python} -m streamer "$@";; esac; }}'
        )
