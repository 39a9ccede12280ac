"""Runs every command with `--help` and with wrong arguments in this process, so that no service starts."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent.parent
#: For each command, wrong uses to record. An unknown option is added to each list.
COMMANDS: dict[str, tuple[str, ...]] = {
    "": ("", "nonsense"),
    "serve": ("--port", "extra"),
    "predict": ("", "a.jpg --jobs many"),
    "push": ("", "0 --mode sometimes", "0 --fps -1", "0 1"),
    "models": ("", "nonsense"),
    "models list": ("extra",),
    "models pull": ("", "a --tries 0"),
    "models check": ("",),
    "models optimize": ("", "a.onnx --precision int3"),
    "keys": ("", "nonsense"),
    "keys new": ("", "a --format yaml", "a --scopes everything"),
    "keys check": ("", "/nonexistent/keys.toml"),
    "samples": ("", "nonsense"),
    "samples stats": ("extra",),
    "samples verify": ("extra",),
    "samples export": ("", "--format pdf --out x"),
    "drift": ("", "nonsense"),
    "drift evaluate": ("/nonexistent", "--period yesterday", "--min-streams 0"),
    "labels": ("", "nonsense"),
    "labels import": ("", "a.json --from xml --out x"),
    "labels delete": ("", "set"),
    "promote": ("", "a.onnx --as v3", "a.onnx --as v2 --unless-worse -1"),
    "versions": ("", "nonsense"),
    "versions list": ("extra",),
    "versions load": ("", "v3 a.onnx"),
    "versions promote": ("extra",),
    "versions rollback": ("extra",),
    "train": ("", "set --out a.onnx", "set --from scratch --out a.onnx --steps 0"),
    "evaluate": ("", "set", "set v1 --part all"),
    "simulate": ("", "nonsense"),
    "simulate fleet": ("", "--cameras 1 --replica-fps 0"),
    "simulate autoscaling": ("extra", "--day nonsense", "--target 0", "--up 4"),
    "simulate streams": ("", "2x10", "2x10 --run-times 4:10", "ten --run-times 1:10", "2x10 --stalls 5"),
}
#: Environment of a terminal that has no colours and is wide enough to show each option in full.
_TERMINAL = {"COLUMNS": "400", "NO_COLOR": "1", "TERM": "dumb"}
_OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
_FRAME = " \t│|*┃"


def describe_commands() -> dict[str, Any]:
    """Return each command's options, documented exit codes, and exit codes for `--help` and wrong uses."""
    entry_point = _entry_point()
    return {
        f"streamer {command}".strip(): _describe(entry_point, command, wrong_uses)
        for command, wrong_uses in COMMANDS.items()
    }


def _describe(entry_point: Callable[[], Any], command: str, wrong_uses: tuple[str, ...]) -> dict[str, Any]:
    code, text = _run(entry_point, f"{command} --help")
    return {
        "help": {"exit_code": code},
        "options": sorted(set(_listed_options(text))),
        "documented_exit_codes": _documented_exit_codes(text),
        "wrong_uses": {use: _run(entry_point, f"{command} {use}")[0] for use in (*wrong_uses, "--nonsense")},
    }


def _entry_point() -> Callable[[], Any]:
    """Return the function that the installed command `streamer` calls."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["streamer"].partition(":")
    found: Callable[[], Any] = getattr(importlib.import_module(module), name)
    return found


def _run(entry_point: Callable[[], Any], arguments: str) -> tuple[int, str]:
    """Return the exit code and the standard output of one call."""
    output = io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["streamer", *arguments.split()]),
        mock.patch.dict(os.environ, _TERMINAL),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        try:
            code = entry_point()
        except SystemExit as end:
            code = end.code
    return int(code or 0), output.getvalue()


def _listed_options(text: str) -> Iterator[str]:
    """Yield the options from those lines of the help text that begin with one."""
    for line in text.splitlines():
        listed = line.strip(_FRAME)
        if listed.startswith("-"):
            yield from _OPTION.findall(listed)


def _documented_exit_codes(text: str) -> list[int]:
    """Return the numbers that follow the words `exit codes` in the text."""
    _, _, told = text.lower().partition("exit codes")
    return sorted({int(number) for number in re.findall(r"(?<![\w.-])\d{1,3}(?![\w.-])", told)})
