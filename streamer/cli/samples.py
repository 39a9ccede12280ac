"""``streamer samples``: the commands ``stats``, ``verify`` and ``export``, and their exit codes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from streamer.cli.arguments import Command, CommandGroup
from streamer.core.signals import EXIT_INTERRUPTED
from streamer.core.terminal import Terminal
from streamer.datasets.export import DEFAULT_ADDRESS, DatasetFormat, ExportOptions, export
from streamer.datasets.sample import BadRequest, CannotRead, CannotWrite, DamagedSample
from streamer.datasets.source import open_source, read_samples, verify
from streamer.datasets.statistics import SUBSETS, Split, count

EXIT_USAGE = 2
EXIT_FILES = 3
EXIT_UNSOUND = 4

#: Error class to exit code; the first match counts.
_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (BadRequest, EXIT_USAGE),
    (CannotRead, EXIT_FILES),
    (CannotWrite, EXIT_FILES),
    (DamagedSample, EXIT_UNSOUND),
)

_DESCRIPTION = "Work with the samples that the service has collected (docs/sampling.md)."
_EXAMPLES = f"""\
examples:
  streamer samples stats
  streamer samples verify --in /srv/samples
  streamer samples stats --in s3://ml-active-learning/parcels
  streamer samples export --format coco --out parcels/

exit codes: 0 done, {EXIT_USAGE} wrong option, no samples or a package is missing,
{EXIT_FILES} a file cannot be read or written, {EXIT_UNSOUND} a sample is damaged, {EXIT_INTERRUPTED} Ctrl-C
"""
_STATS_DESCRIPTION = "Count the collected samples by reason, stream, day, model and label."
_VERIFY_DESCRIPTION = """\
Check that every sidecar has its image, that checksums and sizes are right, and that all files can be read.
An image without a sidecar is no error: its delivery is under way, or a crash interrupted it.
"""
_EXPORT_DESCRIPTION = """\
Write the collected samples as a dataset, with the model's boxes as pre-annotations. All images are upright.
Samples are assigned to train, val or test by stream and hour, never by frame, and to the same subset in every
export.
"""
_EXPORT_EXAMPLES = """\
examples:
  streamer samples export --format coco --out parcels/
  streamer samples export --format yolo --split 90,10,0 --out parcels-yolo/
  streamer samples export --format label-studio --address s3://labels/parcels/ --out tasks/
  streamer samples export --format coco --reason random --split 0,0,100 --out measure/

Estimate the accuracy of a model on samples of reason random only: all others were selected because they are
hard.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the three commands."""
    CommandGroup("samples", _COMMANDS, _EXIT_CODES).add_arguments(parser, _DESCRIPTION, _EXAMPLES)


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--in",
        dest="source",
        metavar="PLACE",
        help="folder of samples, or s3://BUCKET/PREFIX (default: where the service's settings store them)",
    )


def _add_stats(parser: argparse.ArgumentParser) -> None:
    parser.description = _STATS_DESCRIPTION
    _add_source(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _stats(arguments: argparse.Namespace, _terminal: Terminal) -> int:
    with open_source(arguments.source) as source:
        statistics = count(read_samples(source))
    text = json.dumps(statistics.to_dict(), ensure_ascii=False, indent=2)
    sys.stdout.write((text if arguments.json else statistics.to_text()) + "\n")
    return 0


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.description = _VERIFY_DESCRIPTION
    _add_source(parser)


def _verify(arguments: argparse.Namespace, terminal: Terminal) -> int:
    with open_source(arguments.source) as source:
        result = verify(source)
    for problem in result.problems:
        terminal.line(problem, always=True)
    for key in result.incomplete:
        terminal.line(f"{key}: no sidecar (yet)")
    sys.stdout.write(f"{result.samples} samples, {len(result.problems)} problems\n")
    return EXIT_UNSOUND if result.problems else 0


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = _EXPORT_DESCRIPTION, _EXPORT_EXAMPLES
    _add_source(parser)
    parser.add_argument(
        "--format",
        required=True,
        choices=[name.value for name in DatasetFormat],
        help="annotation format",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to create")
    parser.add_argument(
        "--split", default="80,10,10", metavar="A,B,C", help="shares of train, val and test (80,10,10)"
    )
    parser.add_argument(
        "--reason",
        action="append",
        default=[],
        help="only samples taken for this reason; may be repeated",
    )
    parser.add_argument(
        "--below-threshold", action="store_true", help="also boxes with a score below the caller's threshold"
    )
    parser.add_argument(
        "--address",
        default=DEFAULT_ADDRESS,
        metavar="URL",
        help="put in front of the path of an image in Label Studio's tasks (/data/local-files/?d=)",
    )


def _export(arguments: argparse.Namespace, _terminal: Terminal) -> int:
    options = ExportOptions(
        DatasetFormat(arguments.format),
        Split.parse(arguments.split),
        frozenset(arguments.reason),
        arguments.below_threshold,
        arguments.address,
    )
    with open_source(arguments.source) as source:
        images = export(source, arguments.out, options)
    counts = ", ".join(f"{images[subset]} {subset}" for subset in SUBSETS)
    sys.stdout.write(f"{arguments.out}: {images.total()} images ({counts})\n")
    return 0


_COMMANDS = (
    Command("stats", "count them by reason, stream, day, model and label", _add_stats, _stats),
    Command("verify", "check that every sample is complete", _add_verify, _verify),
    Command("export", "write a COCO, YOLO or Label Studio dataset", _add_export, _export),
)
