"""Tests that the client works without the extras, and that commands name the extra that they need."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from streamer.core.extras import EXTRAS, explain_missing
from tests.helpers.service import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Code that makes imports of the packages of the extras fail, as in an installation without the extras.
_WITHOUT_EXTRAS = """
import contextlib, io, json, sys, threading
from streamer.core.extras import EXTRAS

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
_CLIENT = """
import streamer.client
from streamer.client.encoder import ImageLimits, encode
from streamer.client.sources import open_source

assert all(getattr(streamer.client, name) for name in streamer.client.__all__ if name != "VideoStream")
frame = next(iter(open_source("sample").frames(threading.Event())))
print(encode(frame.pixels(), ImageLimits(pixels=20_000)).codec.name)
try:
    streamer.client.VideoStream
except streamer.client.MissingPackage as error:
    print(error)
"""
_COMMANDS = """
from streamer.cli.main import main

def run(words):
    written = io.StringIO()
    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    return code, written.getvalue()

print(json.dumps([run(words) for words in json.loads(sys.argv[1])]))
"""
#: A command line, the extra that its error message names, and its exit code.
NEED_AN_EXTRA = [
    ("serve", "server", 3),
    ("models check models/codes_v1.onnx", "server", 8),
    ("samples stats", "server", 2),
    ("labels import README.md --from coco --out set", "server", 2),
    ("train set --from scratch --out own.onnx", "train", 8),
    ("evaluate set v1", "evaluate", 2),
    ("promote own.onnx --as v2", "evaluate", 2),
    ("simulate streams 2x10 --run-times 1:10", "server", 2),
    ("push sample --show", "view", 2),
    ("push sample --save boxes.mp4", "view", 2),
    ("push 0", "view", 2),
    ("push sample --transport webrtc", "webrtc", 2),
    ("predict data/stills --save boxes", "view", 2),
]
NEED_NONE = ["--version", "--help", "push --help", "predict --help"]


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_client_needs_no_extra_and_names_that_of_video() -> None:
    codec, error = run(_CLIENT).splitlines()
    assert codec == "JPEG"
    assert error.startswith("VideoStream: ")
    assert error.endswith("install it with: pip install 'real-time-vision-api[webrtc]'")


def test_a_command_names_the_extra_that_it_needs() -> None:
    words = [command.split() for command, *_ in NEED_AN_EXTRA] + [command.split() for command in NEED_NONE]
    answers = json.loads(run(_COMMANDS, json.dumps(words)))
    for (command, extra, code), (found, written) in zip(NEED_AN_EXTRA, answers, strict=False):
        assert found == code, (command, written)
        assert written.startswith(f"streamer {command.split()[0]}"), written
        assert written.endswith(f"pip install 'real-time-vision-api[{extra}]'\n"), written
    assert answers[len(NEED_AN_EXTRA) :] == [[0, ""]] * len(NEED_NONE)


def test_the_table_names_extras_that_exist() -> None:
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def test_a_module_of_ours_that_is_missing_is_no_missing_package() -> None:
    assert explain_missing(ModuleNotFoundError("", name="streamer.nowhere")) is None


def test_a_module_of_an_extra_is_explained() -> None:
    error = ModuleNotFoundError("", name="aiortc.codecs")
    assert str(explain_missing(error)).endswith("pip install 'real-time-vision-api[webrtc]'")


@pytest.mark.parametrize("name", ["av", "numpy", "aiohttp", "msgpack", "simplejpeg", "typer", "rich"])
def test_packages_of_the_base_installation_are_in_no_extra(name: str) -> None:
    assert name not in EXTRAS
    assert any(line.startswith(name) for line in PROJECT["dependencies"])


def test_the_base_installation_takes_less_than_250_mb() -> None:
    """The README states this limit. The size includes the packages and our wheel, with compiled modules."""
    include = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    ours = [ROOT / name for name in include["only-include"]]
    size = sum(_compiled(path) for top in ours for path in ([top] if top.is_file() else top.rglob("*.*")))
    names = base_packages()
    assert {"numpy", "av", "aiohttp", "typer", "rich"} <= names
    for name in names:
        size += sum(_compiled(Path(str(file.locate()))) for file in distribution(name).files or ())
    assert 200e6 < size < 250e6


def base_packages() -> set[str]:
    """Return the packages that the base installation needs, with all of their dependencies."""
    found: set[str] = set()
    waiting = list(PROJECT["dependencies"])
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate()):
            found.add(name)
            waiting += distribution(name).requires or ()
    return found


def _compiled(path: Path) -> int:
    """Return the bytes of a file and its .pyc; the size of the source stands in for an absent .pyc."""
    # Other tests may be writing compiled modules, under names that they change when the files are complete.
    if "__pycache__" in path.parts or not path.is_file():
        return 0
    size = path.stat().st_size
    if path.suffix != ".py":
        return size
    compiled = Path(cache_from_source(str(path)))
    return size + (compiled.stat().st_size if compiled.exists() else size)
