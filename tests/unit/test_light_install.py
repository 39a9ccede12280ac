"""Without the packages of the extras the client works, and a command says which extra it needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from streamer.console.extras import EXTRAS, explain_missing
from tests.service import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Refuses the packages of the extras as an installation without them does, then runs the code in `argv[1]`.
_WITHOUT_EXTRAS = """
import sys
from streamer.console.extras import EXTRAS

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_EXTRAS + code], capture_output=True, text=True, check=False, cwd=ROOT
    )


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return run(f"from streamer.cli.main import main\nsys.exit(main({list(words)!r}))")


def test_client_push_and_predict_need_no_extra() -> None:
    done = run(
        "import streamer.client\n"
        "lazy = set(streamer.client.__all__) - {'VideoStream'}\n"
        "assert all(getattr(streamer.client, name) for name in lazy)\n"
        "import streamer.cli.push, streamer.cli.predict, streamer.cli.pusher, streamer.cli.journal\n"
        "import streamer.cli.progress, streamer.client.sources, streamer.client.video\n"
        "from streamer.client.sources import open_source\n"
        "import threading\n"
        "frame = next(iter(open_source('sample').frames(threading.Event())))\n"
        "from streamer.client.encoder import PictureLimits, encode\n"
        "print(encode(frame.pixels(), PictureLimits(pixels=20_000)).codec.name)\n"
    )
    assert (done.stderr, done.stdout) == ("", "JPEG\n")


def test_video_over_webrtc_names_its_extra() -> None:
    done = run(
        "import streamer.client\n"
        "try:\n    streamer.client.VideoStream\n"
        "except streamer.client.MissingPackage as error:\n    print(error)\n"
    )
    assert done.stdout.endswith("install it with: pip install 'real-time-vision-api[webrtc]'\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "extra", "code"),
    [
        (("serve",), "server", 3),
        (("models", "check", "models/codes_v1.onnx"), "server", 8),
        (("samples", "stats"), "server", 2),
        (("push", "sample", "--show"), "view", 2),
        (("push", "sample", "--save", "boxes.mp4"), "view", 2),
        (("push", "0"), "view", 2),
        (("push", "sample", "--transport", "webrtc"), "webrtc", 2),
        (("predict", "data/stills", "--save", "boxes"), "view", 2),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_names_the_extra_that_it_needs(words: tuple[str, ...], extra: str, code: int) -> None:
    done = command(*words)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"streamer {words[0]}")
    assert f"pip install 'real-time-vision-api[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("--help",), ("push", "--help"), ("predict", "--help"), ("--version",)])
def test_help_needs_no_extra(words: tuple[str, ...]) -> None:
    done = command(*words)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_table_names_extras_that_exist() -> None:
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def test_a_module_of_ours_that_is_missing_is_no_missing_package() -> None:
    assert explain_missing(ModuleNotFoundError("", name="streamer.nowhere")) is None
