"""``streamer models pull``: downloads known models."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.assets import MODELS_DIR
from streamer.cli.arguments import add_registry_argument, number, whole_number
from streamer.core.signals import Signals
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.model_zoo.pull import PullOptions
    from streamer.model_zoo.registry import RegistryEntry

DESCRIPTION = """\
Download known models. A file is installed only after it is complete and its sha256 is verified; a manifest
beside it records licence and source. An interrupted download is resumed by the same command. HTTP_PROXY,
HTTPS_PROXY, NO_PROXY and .netrc are used.
"""
EXAMPLES = """\
examples:
  streamer models pull yolox_nano
  streamer models pull yolox_s dfine_s --to /srv/models
  MODEL_V1_PATH=$(streamer models pull yolox_tiny) streamer serve
  HTTPS_PROXY=http://proxy:3128 streamer models pull yolox_m

The paths of the files are written to standard output, everything else to standard error.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models pull``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("names", metavar="NAME", nargs="+", help="name of a known model (see `models list`)")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder to install into (the service's models/)"
    )
    add_registry_argument(parser)
    parser.add_argument("--trust", action="store_true", help="accept a file without a known checksum")
    parser.add_argument("--sha256", metavar="HEX", help="expected checksum, if the registry has none")
    parser.add_argument(
        "--force", action="store_true", help="replace another file of that name, and its manifest"
    )
    parser.add_argument(
        "--stall-timeout",
        type=number(0.1, 3600),
        default=30.0,
        metavar="S",
        help="silence after which an attempt is given up (30)",
    )
    parser.add_argument(
        "--tries",
        type=whole_number(1, 100),
        default=5,
        metavar="N",
        help="consecutive attempts without progress (5)",
    )
    parser.add_argument("--ca-file", metavar="PEM", help="trust this certificate authority")
    parser.add_argument("--quiet", action="store_true", help="print only errors and paths")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Download the models; returns the exit code. Raises BadRequest and the errors of `pull`."""
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - loads the manifest's types

    options = _options(arguments)
    registry = read_registry(arguments.catalogue or MODELS_DIR / "catalogue.json")
    # Check all names first: a misspelt last name must not be reported after an hour of downloads.
    entries = [registry.find(name) for name in arguments.names]
    return asyncio.run(_pull_all(entries, arguments.to or MODELS_DIR, options, terminal))


def _options(arguments: argparse.Namespace) -> PullOptions:
    from inference.models import fields  # noqa: PLC0415 - see run
    from streamer.client.options import Tls  # noqa: PLC0415 - see above
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see run
    from streamer.model_zoo.pull import PullOptions  # noqa: PLC0415 - loads aiohttp

    if arguments.sha256 is not None:
        if len(arguments.names) > 1:
            raise BadRequest(f"--sha256 is the checksum of one file; found {len(arguments.names)} names")
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


async def _pull_all(
    entries: list[RegistryEntry], folder: Path, options: PullOptions, terminal: Terminal
) -> int:
    with Signals() as signals:
        for entry in entries:
            if not await signals.unless_signalled(_pull(entry, folder, options, terminal)):
                terminal.line(f"{entry.name}: stopped; the same command resumes it")
                break
        return signals.exit_code


async def _pull(entry: RegistryEntry, folder: Path, options: PullOptions, terminal: Terminal) -> None:
    from streamer.model_zoo.progress import size_text  # noqa: PLC0415 - see run
    from streamer.model_zoo.pull import pull  # noqa: PLC0415 - loads aiohttp

    result = await pull(entry, folder, terminal, options)
    if result.was_installed:
        checked = "its sha256 is as expected" if entry.sha256 or options.sha256 else "its checksum is unknown"
        terminal.line(f"{entry.name}: is installed already, {checked}")
    else:
        terminal.line(
            f"{entry.name}: {size_text(result.path.stat().st_size)}, licence {entry.licence}; serve it with "
            f"MODEL_V1_PATH={result.path} streamer serve"
        )
    terminal.close()  # clears the status line, which would precede the path
    sys.stdout.write(f"{result.path}\n")
    sys.stdout.flush()
