"""``streamer models pull``: arguments, signals and output around `pull`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.console.signals import Signals
from streamer.console.terminal import Terminal
from streamer.model_zoo.list_command import add_catalogue_argument
from streamer.model_zoo.option_values import number, whole

if TYPE_CHECKING:
    from streamer.model_zoo.entry import Entry
    from streamer.model_zoo.pull import PullOptions

DESCRIPTION = """\
Download models that the catalogue knows. A file is put into place only once it is complete and its sha256 is
the expected one; a manifest beside it says licence and source. A download that was cut or stopped goes on
where it was. HTTP_PROXY, HTTPS_PROXY, NO_PROXY and .netrc are honoured.
"""
EXAMPLES = """\
examples:
  streamer models pull yolox_nano
  streamer models pull yolox_s dfine_s --to /srv/models
  MODEL_V1_PATH=$(streamer models pull yolox_tiny) streamer serve
  HTTPS_PROXY=http://proxy:3128 streamer models pull yolox_m

Paths of the files go to standard output, everything else to standard error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models pull``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("names", metavar="NAME", nargs="+", help="name in the catalogue (`models list`)")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder to put it into (the service's models/)"
    )
    add_catalogue_argument(parser)
    parser.add_argument("--trust", action="store_true", help="take a file of which no checksum is known")
    parser.add_argument("--sha256", metavar="HEX", help="checksum to expect where the catalogue has none")
    parser.add_argument("--force", action="store_true", help="replace another file and manifest of that name")
    parser.add_argument(
        "--stall-timeout",
        type=number(0.1, 3600),
        default=30.0,
        metavar="S",
        help="silence that ends a try (30)",
    )
    parser.add_argument(
        "--tries", type=whole(1, 100), default=5, metavar="N", help="tries in a row that bring nothing (5)"
    )
    parser.add_argument("--ca-file", metavar="PEM", help="trust this certificate authority")
    parser.add_argument("--quiet", action="store_true", help="errors and paths only")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Pull; returns the exit code. Raises BadRequest and what `pull` raises."""
    from streamer.config.settings import MODELS_DIR  # noqa: PLC0415 - loads pydantic
    from streamer.model_zoo.catalogue import read_catalogue  # noqa: PLC0415 - loads the manifest's types

    options = _options(arguments)
    catalogue = read_catalogue(arguments.catalogue or MODELS_DIR / "catalogue.json")
    # All names first: the last one must not be found wrong after an hour.
    entries = [catalogue.find(name) for name in arguments.names]
    return asyncio.run(_pull_all(entries, arguments.to or MODELS_DIR, options, terminal))


def _options(arguments: argparse.Namespace) -> PullOptions:
    from inference.models import fields  # noqa: PLC0415 - see run
    from streamer.client.tls import Tls  # noqa: PLC0415 - see above
    from streamer.model_zoo.errors import BadRequest  # noqa: PLC0415 - see run
    from streamer.model_zoo.pull import PullOptions  # noqa: PLC0415 - loads aiohttp

    if arguments.sha256 is not None:
        if len(arguments.names) > 1:
            raise BadRequest(f"--sha256 is of one file; found {len(arguments.names)} names")
        try:
            arguments.sha256 = fields.sha256(arguments.sha256)
        except ValueError as error:
            raise BadRequest(f"--sha256: expected {error}; found {arguments.sha256!r}") from None
    return PullOptions(
        trust=arguments.trust,
        sha256=arguments.sha256,
        force=arguments.force,
        stall_s=arguments.stall_timeout,
        tries=arguments.tries,
        tls=Tls(arguments.ca_file),
    )


async def _pull_all(entries: list[Entry], folder: Path, options: PullOptions, terminal: Terminal) -> int:
    with Signals() as signals:
        for entry in entries:
            if not await signals.unless_told(_pull(entry, folder, options, terminal)):
                terminal.line(f"{entry.name}: stopped; the same command goes on from here")
                break
        return signals.exit_code


async def _pull(entry: Entry, folder: Path, options: PullOptions, terminal: Terminal) -> None:
    from streamer.model_zoo.amounts import size_text  # noqa: PLC0415 - see run
    from streamer.model_zoo.pull import pull  # noqa: PLC0415 - loads aiohttp

    pulled = await pull(entry, folder, terminal, options)
    if pulled.was_there:
        checked = "its sha256 is as expected" if entry.sha256 or options.sha256 else "no checksum is known"
        terminal.line(f"{entry.name}: is there already, {checked}")
    else:
        terminal.line(
            f"{entry.name}: {size_text(pulled.path.stat().st_size)}, licence {entry.licence}; serve it with "
            f"MODEL_V1_PATH={pulled.path} streamer serve"
        )
    terminal.close()  # the status would stand before the path
    sys.stdout.write(f"{pulled.path}\n")
    sys.stdout.flush()
