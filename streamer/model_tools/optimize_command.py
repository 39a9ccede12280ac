"""``streamer models optimize``: arguments, progress and output around `optimisation` and `verdict`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.console.terminal import Terminal
from streamer.model_zoo.option_values import number, whole

if TYPE_CHECKING:
    from streamer.model_tools.images import Pictures
    from streamer.model_tools.optimisation import Task

DESCRIPTION = """\
Make a faster file of a model, beside it or where --to says, and say what that costs: how many of the
original's boxes it still finds on your pictures, and how fast both are. Metadata and manifest are kept.

fp32  onnxruntime's optimisation done once instead of at every start; results stay the same
fp16  half precision for GPUs; the head that computes the boxes stays in float32
int8  8 bits for CPUs, calibrated on your pictures; head and layers that lose too much stay in float32
"""
EXAMPLES = """\
examples:
  streamer models optimize best.onnx
  streamer models optimize best.onnx --precision int8 --images photos/
  streamer models optimize best.onnx --for gpu --images photos/ --to best.gpu.onnx

The package onnx is needed: pip install 'real-time-vision-api[optimize]'.
exit codes: 0 done, 2 wrong option or folder, 4 the service refuses the model or the result,
5 a file cannot be written or is in the way, 8 the package onnx is missing
"""
#: Seconds for each timing of both models.
TIMING_S = 2.0
_MISSING = "the package onnx is needed to edit models: pip install 'real-time-vision-api[optimize]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models optimize``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("file", type=Path, metavar="FILE", help="an ONNX file; its manifest lies beside it")
    parser.add_argument(
        "--for", dest="device", default="cpu", choices=("cpu", "gpu"), help="where it will run (cpu)"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "fp16", "int8"), help="arithmetic (cpu: fp32, gpu: fp16)"
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="pictures like those it will see; int8 needs them"
    )
    parser.add_argument(
        "--max-images",
        type=whole(1, 100_000),
        default=200,
        metavar="N",
        help="pictures used, evenly spread (200)",
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="the result (NAME.PRECISION.onnx beside FILE)"
    )
    parser.add_argument(
        "--agreement",
        type=number(0, 1),
        default=0.95,
        metavar="0..1",
        help="share of boxes that int8 must keep, by sparing layers (0.95)",
    )
    parser.add_argument("--force", action="store_true", help="replace what is there")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Optimise; returns the exit code. Raises BadRequest, Unavailable and what `optimise` raises."""
    from streamer.model_zoo.amounts import bar  # noqa: PLC0415 - with the others
    from streamer.model_zoo.errors import Unavailable  # noqa: PLC0415 - with the others

    try:
        import onnx  # noqa: F401, PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise Unavailable(_MISSING) from error
    from streamer.model_tools.optimisation import optimise  # noqa: PLC0415 - loads onnx and onnxruntime
    from streamer.model_tools.verdict import describe, verdict_text  # noqa: PLC0415 - see above

    task = _task(arguments, terminal)
    outcome = optimise(task, lambda text, share: terminal.status(f"{bar(int(share * 100), 100)} {text}"))
    terminal.close()  # the status would stand in the verdict
    if arguments.json:
        text = json.dumps(describe(outcome), ensure_ascii=False, indent=2)
    else:
        text = verdict_text(outcome)
    sys.stdout.write(text + "\n")
    return 0


def _task(arguments: argparse.Namespace, terminal: Terminal) -> Task:
    """Return what is to be done. Raises BadRequest or CannotWrite before anything is loaded."""
    from streamer.model_tools.optimisation import Precision, Task  # noqa: PLC0415 - see run
    from streamer.model_zoo.errors import BadRequest, CannotWrite  # noqa: PLC0415 - see run

    for_gpu = arguments.device == "gpu"
    precision = Precision(arguments.precision or ("fp16" if for_gpu else "fp32"))
    if precision is Precision.FP16 and not for_gpu:
        raise BadRequest(
            "--precision fp16 is for a GPU (--for gpu): a CPU computes it in float32, and converts"
        )
    if precision is Precision.INT8 and for_gpu:
        raise BadRequest(
            "--precision int8 is for the CPU: onnxruntime's CUDA provider is slower with it than with fp16"
        )
    if precision is Precision.INT8 and arguments.images is None:
        raise BadRequest("--precision int8 needs --images DIR: pictures like those the model will see")
    target = arguments.to or arguments.file.with_name(f"{arguments.file.stem}.{precision}.onnx")
    if target.suffix != ".onnx":
        raise BadRequest(f"--to {target}: expected a name that ends in .onnx")
    if target.exists() and arguments.file.exists() and target.samefile(arguments.file):
        raise BadRequest(f"--to {target} is the original itself")
    in_the_way = next((path for path in (target, target.with_suffix(".json")) if path.exists()), None)
    if in_the_way is not None and not arguments.force:
        raise CannotWrite(f"{in_the_way} is there already; --force replaces it, --to writes elsewhere")
    return Task(
        source=arguments.file,
        target=target,
        for_gpu=for_gpu,
        precision=precision,
        pictures=_pictures(arguments, terminal),
        wanted=arguments.agreement,
        timing_s=TIMING_S,
    )


def _pictures(arguments: argparse.Namespace, terminal: Terminal) -> Pictures | None:
    from streamer.model_tools.images import find_pictures  # noqa: PLC0415 - loads OpenCV

    if arguments.images is None:
        return None
    terminal.status("reading pictures")
    pictures = find_pictures(arguments.images, arguments.max_images)
    for reason in pictures.left_out:
        terminal.line(f"left out: {reason}")
    return pictures
