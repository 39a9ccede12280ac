"""``streamer models optimize``: makes a faster model file and reports what it costs."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.cli.arguments import number, whole_number
from streamer.core.terminal import Terminal

if TYPE_CHECKING:
    from streamer.model_tools.model_inputs import ImageFiles
    from streamer.model_tools.optimisation import Task

DESCRIPTION = """\
Make a faster model file, beside the original or at --to, and report what it costs: how many of the original's
boxes it still finds on your images, and how fast both are. Metadata and manifest are kept.

fp32  ONNX Runtime's optimisations applied once instead of at every start; the results stay the same
fp16  half precision for GPUs; the head that computes the boxes stays in float32
int8  8 bits for CPUs, calibrated on your images; the head and layers that lose too much stay in float32
"""
EXAMPLES = """\
examples:
  streamer models optimize best.onnx
  streamer models optimize best.onnx --precision int8 --images photos/
  streamer models optimize best.onnx --for gpu --images photos/ --to best.gpu.onnx

This command needs the package onnx: pip install 'real-time-vision-api[optimize]'.
exit codes: 0 done, 2 wrong option or folder, 4 the service refuses the model or the result,
5 a file cannot be written or exists already, 8 the package onnx is missing
"""
#: Seconds for each time measurement of both models.
TIMING_S = 2.0
_MISSING = "this command needs the package onnx: pip install 'real-time-vision-api[optimize]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models optimize``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="an ONNX file, with its manifest beside it if it has one"
    )
    parser.add_argument(
        "--for", dest="device", default="cpu", choices=("cpu", "gpu"), help="where the model will run (cpu)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        help="arithmetic (default for cpu: fp32, gpu: fp16)",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="images like those the model will see; int8 requires them",
    )
    parser.add_argument(
        "--max-images",
        type=whole_number(1, 100_000),
        default=200,
        metavar="N",
        help="images used, evenly spread over the folder (200)",
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="file to write (NAME.PRECISION.onnx beside FILE)"
    )
    parser.add_argument(
        "--agreement",
        type=number(0, 1),
        default=0.95,
        metavar="0..1",
        help="share of boxes that int8 must keep; layers stay in float32 for it (0.95)",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no progress")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Optimise; returns the exit code. Raises BadRequest, Unavailable and the errors of `optimise`."""
    from streamer.model_zoo.download_url import Unavailable  # noqa: PLC0415 - as the others
    from streamer.model_zoo.progress import bar  # noqa: PLC0415 - as the others

    if find_spec("onnx") is None:  # an extra
        raise Unavailable(_MISSING)
    from streamer.model_tools.optimisation import (  # noqa: PLC0415 - see above
        optimise,
        report_json,
        report_text,
    )

    task = _task(arguments, terminal)
    outcome = optimise(task, lambda text, share: terminal.status(f"{bar(int(share * 100), 100)} {text}"))
    terminal.close()  # clears the status line, which would precede the report
    if arguments.json:
        text = json.dumps(report_json(outcome), ensure_ascii=False, indent=2)
    else:
        text = report_text(outcome)
    sys.stdout.write(text + "\n")
    return 0


def _task(arguments: argparse.Namespace, terminal: Terminal) -> Task:
    """Return the task that the options describe. Raises BadRequest or CannotWrite before loading a model."""
    from streamer.model_tools.optimisation import Precision, Task  # noqa: PLC0415 - see run
    from streamer.model_zoo.download_url import BadRequest, CannotWrite  # noqa: PLC0415 - see run

    for_gpu = arguments.device == "gpu"
    precision = Precision(arguments.precision or ("fp16" if for_gpu else "fp32"))
    if precision is Precision.FP16 and not for_gpu:
        raise BadRequest(
            "--precision fp16 is for a GPU (--for gpu): a CPU converts it and computes in float32"
        )
    if precision is Precision.INT8 and for_gpu:
        raise BadRequest(
            "--precision int8 is for the CPU: ONNX Runtime's CUDA provider is slower with it than with fp16"
        )
    if precision is Precision.INT8 and arguments.images is None:
        raise BadRequest("--precision int8 needs --images DIR: images like those the model will process")
    target = arguments.to or arguments.file.with_name(f"{arguments.file.stem}.{precision}.onnx")
    if target.suffix != ".onnx":
        raise BadRequest(f"--to {target}: expected a name that ends in .onnx")
    if target.exists() and arguments.file.exists() and target.samefile(arguments.file):
        raise BadRequest(f"--to {target} is the original itself")
    existing = next((path for path in (target, target.with_suffix(".json")) if path.exists()), None)
    if existing is not None and not arguments.force:
        raise CannotWrite(f"{existing} exists already; --force replaces it, --to writes elsewhere")
    return Task(
        source=arguments.file,
        target=target,
        for_gpu=for_gpu,
        precision=precision,
        images=_images(arguments, terminal),
        min_agreement=arguments.agreement,
        timing_s=TIMING_S,
    )


def _images(arguments: argparse.Namespace, terminal: Terminal) -> ImageFiles | None:
    from streamer.model_tools.model_inputs import find_images  # noqa: PLC0415 - loads OpenCV

    if arguments.images is None:
        return None
    terminal.status("reading images")
    images = find_images(arguments.images, arguments.max_images)
    for reason in images.left_out:
        terminal.line(f"left out: {reason}")
    return images
