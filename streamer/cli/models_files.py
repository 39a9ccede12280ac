"""Implements ``streamer models optimize``, which writes a model file."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamer.cli.command import (
    Command,
    Json,
    Quiet,
    epilog,
    number,
    option,
    terminal_of,
    whole_number,
)
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.extras import install_command
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.model_tools.model_inputs import ImageFiles
    from streamer.model_tools.optimisation import Precision

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
