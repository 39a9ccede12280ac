"""``streamer models``: its four commands, their exit codes, and ``list`` itself."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from inference.core.errors import DeviceUnavailable, ModelRefused
from streamer.assets import MODELS_DIR
from streamer.cli import models_check, models_optimize, models_pull
from streamer.cli.arguments import Command, CommandGroup, add_registry_argument
from streamer.client.errors import BadInput, SourceFailed
from streamer.core.signals import EXIT_INTERRUPTED, EXIT_TERMINATED
from streamer.core.terminal import Terminal
from streamer.model_zoo.download_url import (
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
_LIST_DESCRIPTION = """\
List the installed models (the files in a folder, and the files that the service is set to serve) and the
known models, which `pull` can download: name, size, licence, classes and input size. No model is run or
downloaded.
"""
_LIST_EXAMPLES = """\
examples:
  streamer models list
  streamer models list --in /srv/models
  streamer models list --json | jq -r '.known[] | select(.licence == "Apache-2.0") | .name'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the four commands."""
    CommandGroup("models", _COMMANDS, _EXIT_CODES).add_arguments(parser, DESCRIPTION, EXAMPLES)


def _add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models list``."""
    parser.description, parser.epilog = _LIST_DESCRIPTION, _LIST_EXAMPLES
    parser.add_argument(
        "--in", dest="folder", type=Path, metavar="DIR", help="folder of models (the service's models/)"
    )
    add_registry_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """List the models; returns the exit code. Raises BadRequest."""
    from streamer.config.settings import SettingsError, load_settings  # noqa: PLC0415 - loads pydantic
    from streamer.model_zoo.model_folder import (  # noqa: PLC0415 - see above
        find_installed,
        list_json,
        list_text,
    )
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - see above

    serving: dict[str, Path] = {}
    try:
        serving = load_settings().models()
    except SettingsError as error:
        terminal.line(f"{error}; the list does not show which models the service serves", always=True)
    folder = arguments.folder or MODELS_DIR
    registry = read_registry(arguments.catalogue or MODELS_DIR / "catalogue.json")
    installed = find_installed(folder, registry, serving)
    if arguments.json:
        text = json.dumps(list_json(folder, installed, registry), ensure_ascii=False, indent=2)
    else:
        text = list_text(folder, installed, registry)
    sys.stdout.write(text + "\n")
    return 0


_COMMANDS = (
    Command("list", "installed and known models", _add_list_arguments, _list),
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
