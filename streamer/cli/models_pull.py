"""Implements ``streamer models pull``, which downloads model files."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.assets import MODELS_DIR
from streamer.cli.command import (
    CaFile,
    Catalogue,
    Command,
    epilog,
    number,
    option,
    terminal_of,
    whole_number,
)
from streamer.core.signals import Signals
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.model_zoo.download import UriOptions
    from streamer.model_zoo.pull import PullOptions
    from streamer.model_zoo.registry import RegistryEntry

app = typer.Typer(add_completion=False)


@app.command(
    cls=Command,
    short_help="download a model by name or address, and verify it",
    epilog=epilog(
        """
        streamer models pull yolox_nano
        streamer models pull yolox_s dfine_s --to /srv/models
        MODEL_V1_PATH=$(streamer models pull yolox_tiny) streamer serve
        HTTPS_PROXY=http://proxy:3128 streamer models pull yolox_m
        streamer models pull https://host.example/parcels.onnx --sha256 HEX
        streamer models pull s3://models/parcels.onnx --sha256 HEX --name parcels
        streamer models pull oci://registry.example/models/parcels@sha256:HEX
        """,
        notes="The paths of the files are written to standard output, everything else to standard error.",
    ),
)
def pull(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="name of a known model (see `models list`), or address of a file: https://, s3:// or oci://",
        ),
    ],
    to: Annotated[
        Path | None,
        option("--to", "folder to install into (the service's models/)", value="DIR", parser=Path),
    ] = None,
    catalogue: Catalogue = None,
    trust: Annotated[bool, option("--trust", "accept a file without a known checksum, and a tag")] = False,
    sha256: Annotated[
        str | None, option("--sha256", "expected checksum, if the registry has none", value="HEX")
    ] = None,
    name: Annotated[
        str | None,
        option("--name", "name of the installed file, for an address (its last part)", value="NAME"),
    ] = None,
    manifest: Annotated[
        str | None,
        option(
            "--manifest",
            "manifest to write, for an address: a JSON object, or the file that has it",
            value="JSON",
        ),
    ] = None,
    plain_http: Annotated[
        bool, option("--plain-http", "use http for the registry of an oci:// address, without a login")
    ] = False,
    force: Annotated[bool, option("--force", "replace another file of that name, and its manifest")] = False,
    stall_timeout: Annotated[
        float,
        option(
            "--stall-timeout",
            "silence after which an attempt is given up (30)",
            value="S",
            parser=number(0.1, 3600),
        ),
    ] = 30.0,
    tries: Annotated[
        int,
        option(
            "--tries",
            "consecutive attempts without progress (5)",
            value="N",
            parser=whole_number(1, 100),
        ),
    ] = 5,
    ca_file: CaFile = None,
    quiet: Annotated[bool, option("--quiet", "print only errors and paths")] = False,
) -> int:
    """Download models: known ones by name, others by address.

    A file is installed only after it is complete and its sha256 is verified; a manifest beside it records
    licence and source. An interrupted download is resumed by the same command. HTTP_PROXY, HTTPS_PROXY and
    NO_PROXY are used. Credentials come from .netrc for https, from the settings of the sample store for s3
    (AWS_ACCESS_KEY_ID, S3_ENDPOINT_URL and others), and from Docker's config.json for oci.
    """
    from streamer.client.options import Tls  # noqa: PLC0415 - loads NumPy
    from streamer.model_zoo.download import UriOptions  # noqa: PLC0415 - loads aiohttp
    from streamer.model_zoo.pull import PullOptions  # noqa: PLC0415 - see above

    _check_single(names, {"--sha256": sha256, "--name": name, "--manifest": manifest})
    tls = Tls(ca_file)
    checksum = None if sha256 is None else _checksum(sha256)
    options = PullOptions(
        trust=trust, sha256=checksum, force=force, stall_s=stall_timeout, tries=tries, tls=tls
    )
    uri_options = UriOptions(
        name=name,
        sha256=checksum,
        manifest={} if manifest is None else _manifest(manifest),
        plain_http=plain_http,
        tls=tls,
        stall_s=stall_timeout,
        tries=tries,
    )
    wanted = _wanted(names, catalogue or MODELS_DIR / "catalogue.json", uri_options)
    return asyncio.run(_pull_all(wanted, to or MODELS_DIR, options, uri_options, terminal_of(ctx)))


def _wanted(names: list[str], catalogue: Path, options: UriOptions) -> list[str | RegistryEntry]:
    """Return the addresses, and the entries of the names.

    All names are checked first: a misspelt last name must not be reported after an hour of downloads. Raises
    BadRequest.
    """
    from streamer.model_zoo.download import is_uri  # noqa: PLC0415 - see pull
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see pull
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - loads the manifest's types

    known = [name for name in names if not is_uri(name)]
    if known and (options.name is not None or options.manifest):
        raise BadRequest(
            f"--name and --manifest describe the file at an address; found a known model, {known[0]!r}"
        )
    if not known:
        return list(names)
    registry = read_registry(catalogue)
    return [name if is_uri(name) else registry.find(name) for name in names]


def _check_single(names: list[str], options: Mapping[str, str | None]) -> None:
    """Raise BadRequest if an option for one file is given for several."""
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see pull

    for option_name, value in options.items():
        if value is not None and len(names) > 1:
            raise BadRequest(f"{option_name} describes one file; found {len(names)} names")


def _checksum(text: str) -> str:
    """Return the checksum of ``--sha256``. Raises BadRequest."""
    from inference.models import fields  # noqa: PLC0415 - see pull
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see pull

    try:
        return fields.sha256(text)
    except ValueError as error:
        raise BadRequest(f"--sha256: expected {error}; found {text!r}") from None


def _manifest(text: str) -> Mapping[str, Any]:
    """Return the manifest of ``--manifest``, which is JSON or the name of a file. Raises BadRequest."""
    from streamer.model_zoo.download import parse_manifest_option  # noqa: PLC0415 - see pull
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see pull

    if text.lstrip().startswith("{"):
        return parse_manifest_option(text)
    try:
        return parse_manifest_option(Path(text).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise BadRequest(f"--manifest {text}: {reason}") from error


async def _pull_all(
    wanted: list[str | RegistryEntry],
    folder: Path,
    options: PullOptions,
    uri_options: UriOptions,
    terminal: Terminal,
) -> int:
    from streamer.model_zoo.origin import without_query  # noqa: PLC0415 - see pull

    with Signals() as signals:
        for each in wanted:
            if not await signals.unless_signalled(_pull(each, folder, options, uri_options, terminal)):
                name = without_query(each) if isinstance(each, str) else each.name
                terminal.line(f"{name}: stopped; the same command resumes it")
                break
        return signals.exit_code


async def _pull(
    wanted: str | RegistryEntry,
    folder: Path,
    options: PullOptions,
    uri_options: UriOptions,
    terminal: Terminal,
) -> None:
    from streamer.model_zoo.download import Download, of_uri  # noqa: PLC0415 - loads aiohttp
    from streamer.model_zoo.pull import pull  # noqa: PLC0415 - see above
    from streamer.model_zoo.registry import size_text  # noqa: PLC0415 - see pull

    download = (
        await of_uri(wanted, folder, uri_options) if isinstance(wanted, str) else Download.of_entry(wanted)
    )
    result = await pull(download, folder, terminal, options)
    if result.was_installed:
        checked = (
            "its sha256 is as expected" if download.sha256 or options.sha256 else "its checksum is unknown"
        )
        terminal.line(f"{download.name}: is installed already, {checked}")
    else:
        terminal.line(
            f"{download.name}: {size_text(result.path.stat().st_size)}, licence {download.licence}; serve it "
            f"with MODEL_V1_PATH={result.path} streamer serve"
        )
    terminal.close()  # clears the status line, which would precede the path
    sys.stdout.write(f"{result.path}\n")
    sys.stdout.flush()
