"""The option that names the collection to work on, and what it leads to."""

from __future__ import annotations

import argparse
from pathlib import Path

from streamer.dataset.errors import BadRequest
from streamer.dataset.source import FolderSource, Source
from streamer.settings import SettingsError, load_settings


def add_origin(parser: argparse.ArgumentParser) -> None:
    """Add ``--in``."""
    parser.add_argument(
        "--in", dest="origin", metavar="DIR", help="folder of samples (the service's SAMPLES_DIR)"
    )


def open_origin(arguments: argparse.Namespace) -> Source:
    """Return the collection. Raises BadRequest when it is none."""
    if arguments.origin:
        return FolderSource(Path(arguments.origin))
    try:
        return FolderSource(load_settings().samples_dir)
    except SettingsError as error:
        raise BadRequest(str(error)) from error
