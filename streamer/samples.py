"""``streamer samples``: its three commands and exit codes. Loads what a command needs."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from importlib import import_module

from streamer.client.signals import EXIT_INTERRUPTED
from streamer.client.terminal import Terminal
from streamer.dataset.errors import BadRequest, CannotRead, CannotWrite, DamagedSample, DatasetError

EXIT_USAGE = 2
EXIT_FILES = 3
EXIT_UNSOUND = 4

#: Error to exit code; the first that fits.
_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (BadRequest, EXIT_USAGE),
    (CannotRead, EXIT_FILES),
    (CannotWrite, EXIT_FILES),
    (DamagedSample, EXIT_UNSOUND),
)
#: Command, its module with `add_arguments` and `run`, and what the list of commands says of it.
_COMMANDS = (
    ("stats", "streamer.dataset.stats_command", "count them: by reason, stream, day, model, label"),
    ("verify", "streamer.dataset.verify_command", "check that every one is whole"),
    ("export", "streamer.dataset.export_command", "write a COCO, YOLO or Label Studio data set"),
)

DESCRIPTION = "Work with the samples that the service has collected (docs/sampling.md)."
EXAMPLES = f"""\
examples:
  streamer samples stats
  streamer samples verify --in /srv/samples
  streamer samples stats --in s3://ml-active-learning/parcels
  streamer samples export --format coco --out parcels/

exit codes: 0 done, {EXIT_USAGE} wrong option or no samples, {EXIT_FILES} a file cannot be read or written,
{EXIT_UNSOUND} a sample is damaged, {EXIT_INTERRUPTED} Ctrl-C
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the three commands."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="samples_command", required=True, metavar="COMMAND")
    for name, module, help_text in _COMMANDS:
        command = commands.add_parser(
            name, help=help_text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        loaded = import_module(module)
        loaded.add_arguments(command)
        command.set_defaults(run=functools.partial(_run, name, loaded.run))


def _run(name: str, run: Callable[[argparse.Namespace, Terminal], int], arguments: argparse.Namespace) -> int:
    """Run one command; returns the exit code. What it cannot do is one line on standard error."""
    terminal = Terminal()
    try:
        return run(arguments, terminal)
    except DatasetError as error:
        terminal.line(f"streamer samples {name}: {error}", always=True)
        return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        terminal.close()
