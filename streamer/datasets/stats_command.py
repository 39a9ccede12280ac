"""``streamer samples stats``: arguments and output around `statistics`."""

from __future__ import annotations

import argparse
import json
import sys

from streamer.console.terminal import Terminal
from streamer.datasets.export import read_samples
from streamer.datasets.origin import add_origin, open_origin
from streamer.datasets.statistics import count

DESCRIPTION = "Count collected samples: by reason, stream, day, model and label."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer samples stats``."""
    parser.description = DESCRIPTION
    add_origin(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(arguments: argparse.Namespace, _terminal: Terminal) -> int:
    """Count; returns the exit code. Raises DatasetError."""
    with open_origin(arguments) as source:
        statistics = count(read_samples(source))
    text = json.dumps(statistics.to_dict(), ensure_ascii=False, indent=2)
    sys.stdout.write((text if arguments.json else statistics.to_text()) + "\n")
    return 0
