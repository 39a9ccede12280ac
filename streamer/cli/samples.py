"""``streamer samples``: its three commands and exit codes."""

from __future__ import annotations

import argparse

from streamer.cli.command_group import CommandGroup
from streamer.console.signals import EXIT_INTERRUPTED
from streamer.datasets.errors import BadRequest, CannotRead, CannotWrite, DamagedSample

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
    ("stats", "streamer.datasets.stats_command", "count them: by reason, stream, day, model, label"),
    ("verify", "streamer.datasets.verify_command", "check that every one is whole"),
    ("export", "streamer.datasets.export_command", "write a COCO, YOLO or Label Studio data set"),
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
    CommandGroup("samples", _COMMANDS, _EXIT_CODES).add_arguments(parser, DESCRIPTION, EXAMPLES)
