"""``streamer models``: its four commands and their exit codes."""

from __future__ import annotations

import argparse

from inference.core.errors import DeviceUnavailable, ModelRefused
from streamer.cli import models_check, models_list, models_optimize, models_pull
from streamer.cli.command_group import Command, CommandGroup
from streamer.client.errors import BadInput, SourceFailed
from streamer.console.signals import EXIT_INTERRUPTED, EXIT_TERMINATED
from streamer.model_zoo.errors import (
    BadRequest,
    CannotWrite,
    NotTrusted,
    PullFailed,
    Unavailable,
    WrongFile,
)

EXIT_USAGE = 2
EXIT_PULL = 3
EXIT_REFUSED = 4
EXIT_WRITE = 5
EXIT_WRONG_FILE = 6
EXIT_NOT_TRUSTED = 7
EXIT_UNAVAILABLE = 8

#: Error class to exit code; the first match counts.
_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (BadRequest, EXIT_USAGE),
    (BadInput, EXIT_USAGE),
    (SourceFailed, EXIT_USAGE),
    (PullFailed, EXIT_PULL),
    (ModelRefused, EXIT_REFUSED),
    (CannotWrite, EXIT_WRITE),
    (WrongFile, EXIT_WRONG_FILE),
    (NotTrusted, EXIT_NOT_TRUSTED),
    (Unavailable, EXIT_UNAVAILABLE),
    (DeviceUnavailable, EXIT_UNAVAILABLE),
)

_COMMANDS = (
    Command("list", "installed and known models", models_list.add_arguments, models_list.run),
    Command("pull", "download a known model and verify it", models_pull.add_arguments, models_pull.run),
    Command(
        "check",
        "report whether the service serves a file, how, and how fast",
        models_check.add_arguments,
        models_check.run,
    ),
    Command(
        "optimize",
        "make a faster model file, and report what it costs",
        models_optimize.add_arguments,
        models_optimize.run,
    ),
)

DESCRIPTION = "List, download, check and optimise detection models (ONNX files)."
EXAMPLES = f"""\
examples:
  streamer models list
  streamer models pull yolox_nano
  streamer models check best.onnx
  streamer models optimize best.onnx --precision int8 --images photos/

exit codes: 0 done, {EXIT_USAGE} wrong option, name, folder or registry, {EXIT_PULL} the download failed,
{EXIT_REFUSED} the service refuses the model, {EXIT_WRITE} a file cannot be written or exists already,
{EXIT_WRONG_FILE} the download is another file, {EXIT_NOT_TRUSTED} no known checksum and no --trust,
{EXIT_UNAVAILABLE} a package or device is missing, {EXIT_INTERRUPTED} Ctrl-C, {EXIT_TERMINATED} SIGTERM
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the four commands."""
    CommandGroup("models", _COMMANDS, _EXIT_CODES).add_arguments(parser, DESCRIPTION, EXAMPLES)
