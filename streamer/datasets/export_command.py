"""``streamer samples export``: arguments and output around `export`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from streamer.console.terminal import Terminal
from streamer.datasets.export import DEFAULT_ADDRESS, Form, Wishes, export
from streamer.datasets.origin import add_origin, open_origin
from streamer.datasets.split import PARTS, Split

DESCRIPTION = """\
Write collected samples as a data set, with the model's boxes as pre-annotations. Pictures come out upright.
Parts are divided by stream and hour, never by frame, and stay the same in every export.
"""
EXAMPLES = """\
examples:
  streamer samples export --format coco --out parcels/
  streamer samples export --format yolo --split 90,10,0 --out parcels-yolo/
  streamer samples export --format label-studio --address s3://labels/parcels/ --out tasks/
  streamer samples export --format coco --reason random --split 0,0,100 --out measure/

Only samples of reason random may be used to estimate how good a model is: all others were chosen for being
hard.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer samples export``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add_origin(parser)
    parser.add_argument("--format", required=True, choices=[form.value for form in Form])
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--split", default="80,10,10", metavar="A,B,C", help="shares of train, val and test (80,10,10)"
    )
    parser.add_argument(
        "--reason", action="append", default=[], help="only samples taken for this reason; may be repeated"
    )
    parser.add_argument(
        "--below-threshold", action="store_true", help="also boxes below the threshold that was asked for"
    )
    parser.add_argument(
        "--address",
        default=DEFAULT_ADDRESS,
        metavar="URL",
        help="what stands before a picture's path in Label Studio's tasks (/data/local-files/?d=)",
    )


def run(arguments: argparse.Namespace, _terminal: Terminal) -> int:
    """Export; returns the exit code. Raises DatasetError."""
    wishes = Wishes(
        Form(arguments.format),
        Split.parse(arguments.split),
        frozenset(arguments.reason),
        arguments.below_threshold,
        arguments.address,
    )
    with open_origin(arguments) as source:
        parts = export(source, arguments.out, wishes)
    counts = ", ".join(f"{parts[part]} {part}" for part in PARTS)
    sys.stdout.write(f"{arguments.out}: {parts.total()} pictures ({counts})\n")
    return 0
