"""``streamer samples verify``: arguments and output around `verification`."""

from __future__ import annotations

import argparse
import sys

from streamer.console.terminal import Terminal
from streamer.datasets.origin import add_origin, open_origin
from streamer.datasets.verification import verify

DESCRIPTION = """\
Check that every description has its picture, that hashes and sizes are right, and that all can be read.
Pictures without a description are no loss: they are being delivered, or were left by a crash.
"""
#: Something is wrong with the collection.
EXIT_UNSOUND = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer samples verify``."""
    parser.description = DESCRIPTION
    add_origin(parser)


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Check; returns the exit code. Raises DatasetError."""
    with open_origin(arguments) as source:
        result = verify(source)
    for problem in result.problems:
        terminal.line(problem, always=True)
    for key in result.incomplete:
        terminal.line(f"{key}: no description (yet)")
    sys.stdout.write(f"{result.samples} samples, {len(result.problems)} problems\n")
    return EXIT_UNSOUND if result.problems else 0
