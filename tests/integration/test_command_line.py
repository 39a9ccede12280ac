"""Tests commands as processes, as users and scripts run them: colour, completion, imported modules."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.service import ROOT

PLAIN = {"COLUMNS": "80", "TERM": "xterm", "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
#: Matches characters that draw boxes and bars, and the first byte of escape sequences.
DRAWN = re.compile(r"[\x1b\u2500-\u259f]")
#: Heavy libraries that no help page and no usage error may import.
HEAVY = {"numpy", "cv2", "av", "aiohttp", "onnxruntime", "pydantic", "pandas", "evidently", "aiortc"}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `streamer` with its output in pipes."""
    return subprocess.run(
        [sys.executable, "-m", "streamer", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=PLAIN | environment,
        timeout=120,
    )


def on_a_terminal(*words: str, **environment: str) -> str:
    """Return what `streamer` writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=PLAIN | environment,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # the process has ended
            break
        shown += part
        if not part:
            break
    os.close(ours)
    process.wait(60)
    return shown.decode()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--port many", "--port: PORT='many': input should be a valid integer"),
        ("--model nowhere.onnx --port 1", "--model: MODEL_V1_PATH='nowhere.onnx': no such file"),
        ("--model yolox_z", "--model 'yolox_z': there is no such file, and NAME 'yolox_z' is not in "),
        # The error must come before the 36 MB of the model are downloaded.
        (
            "--model yolox_s --device gpu",
            "--device: DEVICE='gpu': 'gpu' is no device; allowed are auto, cpu, cuda",
        ),
        ("--host 0.0.0.0", "HOST='0.0.0.0': without keys"),
        # The option wins over the variable, whose value is valid.
        ("--workers 0", "--workers: WORKERS='0': input should be greater"),
    ],
)
def test_an_option_of_serve_is_refused_with_the_words_of_its_setting(words: str, said: str) -> None:
    done = run("serve", *words.split(), WORKERS="2")
    assert done.returncode == 2
    assert done.stderr.startswith(f"streamer: {said}")
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_variable_is_not_taken_for_an_option() -> None:
    assert run("serve", "--port", "0", WORKERS="many").stderr.startswith("streamer: WORKERS='many': ")


def test_colour_is_for_terminals_and_for_those_who_want_it() -> None:
    assert "\x1b[1;33mUsage:" in on_a_terminal("push", "--help")
    assert "\x1b[1;31mstreamer push: error:" in on_a_terminal("push")
    without = on_a_terminal("push", "--help", NO_COLOR="1")
    assert re.search(r"\x1b\[[0-9;]*3\d", without) is None
    assert DRAWN.search(run("push", "--help").stdout) is None
    assert "\x1b[1;33mUsage:" in run("push", "--help", FORCE_COLOR="1").stdout


def test_a_list_is_a_table_on_a_terminal_and_plain_text_in_a_pipe(tmp_path: Path) -> None:
    words = ("models", "list", "--in", str(tmp_path))
    piped = run(*words, FORCE_COLOR="1").stdout
    assert DRAWN.search(piped) is None
    assert piped.startswith(f"Installed in {tmp_path}\n  NAME  ")
    assert "\n\nKnown to catalogue.json; download one with `streamer models pull NAME`\n  NAME  " in piped
    shown = on_a_terminal(*words)
    assert "\u2500" in shown
    assert "yolox_nano" in shown


@pytest.mark.parametrize("words", ["--help", "push --help", "models check --help"])
def test_a_help_page_loads_nothing_heavy(words: str) -> None:
    code = (
        "import sys; from streamer.cli.main import main; main(sys.argv[1:]);"
        "sys.stderr.write('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = done.stderr.splitlines()[-1].split()
    assert {name.partition(".")[0] for name in loaded} & HEAVY == set()
    commands = {name for name in loaded if name.startswith("streamer.cli.")}
    own = {f"streamer.cli.{words.split()[0]}", "streamer.cli.models_files", "streamer.cli.models_pull"}
    assert commands <= {"streamer.cli.main", "streamer.cli.command", "streamer.cli.exit_codes"} | own


#: Bash script that completes the words of a line as bash does when the user presses Tab.
_COMPLETE = r"""
source "$1"
COMP_WORDS=($2); COMP_CWORD=$3; COMP_LINE="$2"; COMP_POINT=${#COMP_LINE}
[ "$3" -lt "${#COMP_WORDS[@]}" ] || COMP_WORDS+=("")
$(complete -p streamer | sed 's/.*-F \([^ ]*\) .*/\1/') streamer
printf '%s\n' "${COMPREPLY[@]}"
"""


def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    script = tmp_path / "completion.sh"
    environment = PLAIN | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    # Typer asks which shell is its parent. A second command keeps bash from replacing itself with streamer.
    shown = subprocess.run(
        ["bash", "-c", "streamer --show-completion; true"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    script.write_text(shown.stdout)

    def completed(line: str, number: int) -> list[str]:
        command = ["bash", "-c", _COMPLETE, "bash", str(script), line, str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return done.stdout.split()

    assert completed("streamer p", 1) == ["predict", "push", "promote"]
    assert completed("streamer models ", 2) == ["list", "check", "pull", "optimize"]
    assert completed("streamer push --ma", 2) == ["--max-detections", "--max-side", "--max-frames"]
    assert completed("streamer push --mode ", 3) == ["live", "all"]
    assert completed("streamer push 0 --transport web", 4) == ["websocket", "webrtc"]

    subprocess.run(
        ["bash", "-c", "streamer --install-completion; true"],
        check=True,
        env=environment,
        capture_output=True,
    )
    assert "streamer" in (tmp_path / ".bashrc").read_text()
