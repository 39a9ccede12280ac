"""``streamer models list``: installed and known models."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from streamer.assets import MODELS_DIR
from streamer.console.terminal import Terminal

DESCRIPTION = """\
List the installed models (the files in a folder, and the files that the service is set to serve) and the
known models, which `pull` can download: name, size, licence, classes and input size. No model is run or
downloaded.
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
        "--in", dest="folder", type=Path, metavar="DIR", help="folder of models (the service's models/)"
    )
    add_registry_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def add_registry_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--catalogue``."""
    parser.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="registry of known models (models/catalogue.json)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """List the models; returns the exit code. Raises BadRequest."""
    from streamer.config.settings import SettingsError, load_settings  # noqa: PLC0415 - loads pydantic
    from streamer.model_zoo.model_folder import find_installed  # noqa: PLC0415 - loads the manifest's types
    from streamer.model_zoo.model_list import list_json, list_text  # noqa: PLC0415 - see above
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
