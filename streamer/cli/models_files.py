"""Implements ``streamer models pull`` and ``optimize``, which write model files."""

from __future__ import annotations

import asyncio
import sys
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamer.assets import MODELS_DIR
from streamer.cli.command import (
    EXIT_USAGE,
    CaFile,
    Catalogue,
    Command,
    Json,
    Quiet,
    epilog,
    number,
    option,
    terminal_of,
    whole_number,
)
from streamer.core.extras import install_command
from streamer.core.signals import Signals
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.model_tools.model_inputs import ImageFiles
    from streamer.model_tools.optimisation import Precision
    from streamer.model_zoo.pull import PullOptions
    from streamer.model_zoo.registry import RegistryEntry

#: Seconds for each measurement of the original and of the optimised model.
TIMING_S = 2.0
_NEEDS_ONNX = f"this command needs the package onnx: {install_command('optimize')}"

app = typer.Typer(add_completion=False)
ModelFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="an ONNX file, with its manifest beside it if it has one", parser=Path
    ),
]


@app.command(
    cls=Command,
    short_help="download a known model and verify it",
    epilog=epilog(
        """
        streamer models pull yolox_nano
        streamer models pull yolox_s dfine_s --to /srv/models
        MODEL_V1_PATH=$(streamer models pull yolox_tiny) streamer serve
        HTTPS_PROXY=http://proxy:3128 streamer models pull yolox_m
        """,
        notes="The paths of the files are written to standard output, everything else to standard error.",
    ),
)
def pull(
    ctx: typer.Context,
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="name of a known model (see `models list`)")
    ],
    to: Annotated[
        Path | None,
        option("--to", "folder to install into (the service's models/)", value="DIR", parser=Path),
    ] = None,
    catalogue: Catalogue = None,
    trust: Annotated[bool, option("--trust", "accept a file without a known checksum")] = False,
    sha256: Annotated[
        str | None, option("--sha256", "expected checksum, if the registry has none", value="HEX")
    ] = None,
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
    """Download known models.

    A file is installed only after it is complete and its sha256 is verified; a manifest beside it records
    licence and source. An interrupted download is resumed by the same command. HTTP_PROXY, HTTPS_PROXY,
    NO_PROXY and .netrc are used.
    """
    from streamer.client.options import Tls  # noqa: PLC0415 - loads NumPy
    from streamer.model_zoo.pull import PullOptions  # noqa: PLC0415 - loads aiohttp
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - loads the manifest's types

    options = PullOptions(
        trust=trust,
        sha256=None if sha256 is None else _checksum(sha256, names),
        force=force,
        stall_s=stall_timeout,
        tries=tries,
        tls=Tls(ca_file),
    )
    registry = read_registry(catalogue or MODELS_DIR / "catalogue.json")
    # Check all names first: a misspelt last name must not be reported after an hour of downloads.
    entries = [registry.find(name) for name in names]
    return asyncio.run(_pull_all(entries, to or MODELS_DIR, options, terminal_of(ctx)))


def _checksum(text: str, names: list[str]) -> str:
    """Return the checksum of ``--sha256``. Raises BadRequest."""
    from inference.models import fields  # noqa: PLC0415 - see pull
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see pull

    if len(names) > 1:
        raise BadRequest(f"--sha256 is the checksum of one file; found {len(names)} names")
    try:
        return fields.sha256(text)
    except ValueError as error:
        raise BadRequest(f"--sha256: expected {error}; found {text!r}") from None


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
    from streamer.model_zoo.pull import pull  # noqa: PLC0415 - loads aiohttp
    from streamer.model_zoo.registry import size_text  # noqa: PLC0415 - see pull

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


@app.command(
    cls=Command,
    short_help="make a faster model file, and report what it costs",
    epilog=epilog(
        """
        streamer models optimize best.onnx
        streamer models optimize best.onnx --precision int8 --images photos/
        streamer models optimize best.onnx --for gpu --images photos/ --to gpu.onnx
        """,
        notes=f"This command needs the package onnx: {install_command('optimize')}.",
        exit_codes={
            0: "done",
            EXIT_USAGE: "wrong option or folder",
            4: "the service refuses the model or the result",
            5: "a file cannot be written or exists already",
            8: "the package onnx is missing",
        },
    ),
)
def optimize(
    ctx: typer.Context,
    file: ModelFile,
    device: Annotated[Literal["cpu", "gpu"], option("--for", "where the model will run (cpu)")] = "cpu",
    precision: Annotated[
        Literal["fp32", "fp16", "int8"] | None,
        option("--precision", "arithmetic (default for cpu: fp32, gpu: fp16)"),
    ] = None,
    images: Annotated[
        Path | None,
        option(
            "--images", "images like those the model will see; int8 requires them", value="DIR", parser=Path
        ),
    ] = None,
    max_images: Annotated[
        int,
        option(
            "--max-images",
            "images used, evenly spread over the folder (200)",
            value="N",
            parser=whole_number(1, 100_000),
        ),
    ] = 200,
    to: Annotated[
        Path | None,
        option("--to", "file to write (NAME.PRECISION.onnx beside FILE)", value="FILE", parser=Path),
    ] = None,
    agreement: Annotated[
        float,
        option(
            "--agreement",
            "share of boxes that int8 must keep; layers stay in float32 for it (0.95)",
            value="0..1",
            parser=number(0, 1),
        ),
    ] = 0.95,
    force: Annotated[bool, option("--force", "replace existing files")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make a faster model file, beside the original or at --to, and report what it costs.

    The report says how many of the original's boxes it still finds on your images, and how fast both are.
    Metadata and manifest are kept.

      fp32  ONNX Runtime's optimisations applied once instead of at every start; the results stay the same
      fp16  half precision for GPUs; the head that computes the boxes stays in float32
      int8  8 bits for CPUs, calibrated on your images; the head and layers that lose too much stay in float32
    """
    from streamer.model_zoo.download_url import Unavailable  # noqa: PLC0415 - as the others

    if find_spec("onnx") is None:  # this package is an optional extra
        raise Unavailable(_NEEDS_ONNX)
    from streamer.model_tools.optimisation import Precision, Task, optimise, report_json, report_text  # noqa: PLC0415 - loads onnx  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    wanted = Precision(precision or ("fp16" if device == "gpu" else "fp32"))
    _check_precision(wanted, device, images)
    task = Task(
        source=file,
        target=_target(file, to or file.with_name(f"{file.stem}.{wanted}.onnx"), force),
        for_gpu=device == "gpu",
        precision=wanted,
        images=None if images is None else _images(images, max_images, terminal),
        min_agreement=agreement,
        timing_s=TIMING_S,
    )
    outcome = optimise(task, terminal.status)
    terminal.close()  # clears the status line, which would precede the report
    text = dumps(report_json(outcome), ensure_ascii=False, indent=2) if json else report_text(outcome)
    sys.stdout.write(text + "\n")
    return 0


def _check_precision(precision: Precision, device: str, images: Path | None) -> None:
    """Raise BadRequest for a precision that the device cannot use, or that needs images."""
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see optimize

    if precision == "fp16" and device == "cpu":
        raise BadRequest(
            "--precision fp16 is for a GPU (--for gpu): a CPU converts it and computes in float32"
        )
    if precision == "int8" and device == "gpu":
        raise BadRequest(
            "--precision int8 is for the CPU: ONNX Runtime's CUDA provider is slower with it than with fp16"
        )
    if precision == "int8" and images is None:
        raise BadRequest("--precision int8 needs --images DIR: images like those the model will process")


def _target(source: Path, target: Path, force: bool) -> Path:
    """Return the file to write. Raises BadRequest or CannotWrite before a model is loaded."""
    from streamer.model_zoo.download_url import BadRequest, CannotWrite  # noqa: PLC0415 - see optimize

    if target.suffix != ".onnx":
        raise BadRequest(f"--to {target}: expected a name that ends in .onnx")
    if target.exists() and source.exists() and target.samefile(source):
        raise BadRequest(f"--to {target} is the original itself")
    existing = next((path for path in (target, target.with_suffix(".json")) if path.exists()), None)
    if existing is not None and not force:
        raise CannotWrite(f"{existing} exists already; --force replaces it, --to writes elsewhere")
    return target


def _images(folder: Path, most: int, terminal: Terminal) -> ImageFiles:
    from streamer.model_tools.model_inputs import find_images  # noqa: PLC0415 - loads OpenCV

    terminal.status("reading images")
    images = find_images(folder, most)
    for reason in images.left_out:
        terminal.line(f"left out: {reason}")
    return images
