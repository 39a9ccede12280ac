"""``streamer models``: its four commands, their common options and exit codes."""

from __future__ import annotations

import argparse

from inference.core.errors import DeviceUnavailable, ModelRefused
from streamer.cli.command_group import Command, CommandGroup
from streamer.client.errors import BadInput, SourceFailed
from streamer.console.signals import EXIT_INTERRUPTED, EXIT_TERMINATED
from streamer.model_tools import check_command, optimize_command
from streamer.model_zoo import list_command, pull_command
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

#: Error to exit code; the first that fits.
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
    Command("list", "installed and known models", list_command.add_arguments, list_command.run),
    Command("pull", "download a known model and verify it", pull_command.add_arguments, pull_command.run),
    Command(
        "check",
        "say whether and how a file is served, and how fast",
        check_command.add_arguments,
        check_command.run,
    ),
    Command(
        "optimize",
        "make a faster file of a model, and say what it costs",
        optimize_command.add_arguments,
        optimize_command.run,
    ),
)

DESCRIPTION = "Find, get, check and optimise detection models (ONNX files)."
EXAMPLES = f"""\
examples:
  streamer models list
  streamer models pull yolox_nano
  streamer models check best.onnx
  streamer models optimize best.onnx --precision int8 --images photos/

exit codes: 0 done, {EXIT_USAGE} wrong option, name, folder or catalogue, {EXIT_PULL} the download failed,
{EXIT_REFUSED} the service refuses the model, {EXIT_WRITE} a file cannot be written or is in the way,
{EXIT_WRONG_FILE} what came is another file, {EXIT_NOT_TRUSTED} no checksum known and no --trust,
{EXIT_UNAVAILABLE} a package or device is missing, {EXIT_INTERRUPTED} Ctrl-C, {EXIT_TERMINATED} SIGTERM
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the four commands."""
    CommandGroup("models", _COMMANDS, _EXIT_CODES).add_arguments(parser, DESCRIPTION, EXAMPLES)
