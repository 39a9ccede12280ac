"""``streamer models list``: arguments and output around `installed` and `listing`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from streamer.console.terminal import Terminal

DESCRIPTION = """\
List the models that are installed (files in a folder, and what the service is set to serve) and those that
`pull` knows: name, size, licence, classes and input size. Nothing is run and nothing is downloaded.
"""
EXAMPLES = """\
examples:
  streamer models list
  streamer models list --in /srv/models
  streamer models list --json | jq -r '.known[] | select(.licence == "Apache-2.0") | .name'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models list``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "--in", dest="folder", type=Path, metavar="DIR", help="folder to look in (the service's models/)"
    )
    add_catalogue_argument(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")


def add_catalogue_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--catalogue``."""
    parser.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="a catalogue of your own (models/catalogue.json)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """List; returns the exit code. Raises BadRequest."""
    from streamer.config.settings import MODELS_DIR, SettingsError, load_settings  # noqa: PLC0415 - loads pydantic
    from streamer.model_zoo.catalogue import read_catalogue  # noqa: PLC0415 - loads the manifest's types
    from streamer.model_zoo.installed import find_installed  # noqa: PLC0415 - see above
    from streamer.model_zoo.listing import describe, listing  # noqa: PLC0415 - see above

    serving: dict[str, Path] = {}
    try:
        serving = load_settings().models()
    except SettingsError as error:
        terminal.line(f"{error}; what the service would serve is not shown", always=True)
    folder = arguments.folder or MODELS_DIR
    catalogue = read_catalogue(arguments.catalogue or MODELS_DIR / "catalogue.json")
    installed = find_installed(folder, catalogue, serving)
    if arguments.json:
        text = json.dumps(describe(folder, installed, catalogue), ensure_ascii=False, indent=2)
    else:
        text = listing(folder, installed, catalogue)
    sys.stdout.write(text + "\n")
    return 0
