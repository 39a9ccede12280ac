"""``streamer models check``: arguments, progress and output around `examination` and `report`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from streamer.console.terminal import Terminal
from streamer.model_zoo.option_values import whole

EXIT_REFUSED = 4
DESCRIPTION = """\
Load a model exactly as the service would, and say what it finds: family, inputs, outputs, classes, batch,
what the manifest adds, and how long each batch takes on one core and on all. Of a file that would be refused
it says what was expected, what was found, and how to export it right.
"""
EXAMPLES = """\
examples:
  streamer models check best.onnx
  streamer models check best.onnx --device cuda --batch-max 16
  streamer models check best.onnx --json | jq .timings

exit codes: 0 the file is served, 4 it is refused, 8 the device cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models check``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("file", type=Path, metavar="FILE", help="an ONNX file; its manifest lies beside it")
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "tensorrt", "openvino"),
        help="where to run it, as the variable DEVICE (auto)",
    )
    parser.add_argument(
        "--batch-max",
        type=whole(1, 64),
        default=8,
        metavar="N",
        help="largest batch, as the variable BATCH_MAX (8)",
    )
    parser.add_argument("--no-timing", action="store_true", help="no table of times: quicker")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Check; returns the exit code. Raises DeviceUnavailable."""
    from streamer.model_tools.examination import examine  # noqa: PLC0415 - loads onnxruntime
    from streamer.model_tools.report import describe, report_text  # noqa: PLC0415 - see above
    from streamer.model_zoo.amounts import bar  # noqa: PLC0415 - see below

    result = examine(
        arguments.file,
        device=arguments.device,
        batch_max=arguments.batch_max,
        timing=not arguments.no_timing,
        progress=lambda text, share: terminal.status(f"{bar(int(share * 100), 100)} {text}"),
    )
    known = _known_as(result.sha256)
    terminal.close()  # the status would stand in the report
    if arguments.json:
        text = json.dumps(describe(result, known), ensure_ascii=False, indent=2)
    else:
        text = report_text(result, known)
    sys.stdout.write(text + "\n")
    return EXIT_REFUSED if result.refusal is not None else 0


def _known_as(sha256: str | None) -> str | None:
    """Return the name under which the bundled catalogue knows a checksum."""
    from streamer.config.settings import MODELS_DIR  # noqa: PLC0415 - loads pydantic
    from streamer.model_zoo.catalogue import read_catalogue  # noqa: PLC0415 - see run
    from streamer.model_zoo.errors import BadRequest  # noqa: PLC0415 - see run

    try:
        entries = read_catalogue(MODELS_DIR / "catalogue.json").entries
    except BadRequest:
        return None  # it matters to `list` and `pull`, not here
    return next((entry.name for entry in entries if sha256 is not None and entry.sha256 == sha256), None)
