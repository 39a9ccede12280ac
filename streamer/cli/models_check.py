"""``streamer models check``: whether and how the service would serve a model file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from streamer.assets import MODELS_DIR
from streamer.cli.arguments import whole_number
from streamer.core.terminal import Terminal

EXIT_REFUSED = 4
DESCRIPTION = """\
Load a model exactly as the service would, and report family, inputs, outputs, classes, batch sizes, the
fields of the manifest, and how long each batch takes on one core and on all cores. For a file that the
service would refuse, report what was expected, what was found, and how to export a file that works.
"""
EXAMPLES = """\
examples:
  streamer models check best.onnx
  streamer models check best.onnx --device cuda --batch-max 16
  streamer models check best.onnx --json | jq .timings

exit codes: 0 the service would serve the file, 4 it would refuse it, 8 the device cannot be used
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``streamer models check``."""
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="an ONNX file, with its manifest beside it if it has one"
    )
    parser.add_argument(
        "--device",
        default="auto",
        choices=("auto", "cpu", "cuda", "tensorrt", "openvino"),
        help="device to run it on, as in the setting DEVICE (auto)",
    )
    parser.add_argument(
        "--batch-max",
        type=whole_number(1, 64),
        default=8,
        metavar="N",
        help="largest batch, as in the setting BATCH_MAX (8)",
    )
    parser.add_argument("--no-timing", action="store_true", help="skip the time measurements")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="print no progress")


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Check the file; returns the exit code. Raises DeviceUnavailable."""
    from streamer.model_tools.check_report import report_json, report_text  # noqa: PLC0415 - loads onnxruntime
    from streamer.model_tools.inspection import inspect_model  # noqa: PLC0415 - see above
    from streamer.model_zoo.progress import bar  # noqa: PLC0415 - see below

    result = inspect_model(
        arguments.file,
        device=arguments.device,
        batch_max=arguments.batch_max,
        timing=not arguments.no_timing,
        on_progress=lambda text, share: terminal.status(f"{bar(int(share * 100), 100)} {text}"),
    )
    known = _known_as(result.sha256)
    terminal.close()  # clears the status line, which would precede the report
    if arguments.json:
        text = json.dumps(report_json(result, known), ensure_ascii=False, indent=2)
    else:
        text = report_text(result, known)
    sys.stdout.write(text + "\n")
    return EXIT_REFUSED if result.refusal is not None else 0


def _known_as(sha256: str | None) -> str | None:
    """Return the name of the known model with this checksum, else None."""
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see run
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - see run

    try:
        entries = read_registry(MODELS_DIR / "catalogue.json").entries
    except BadRequest:
        return None  # `list` and `pull` report this error; here the name is only a remark
    return next((entry.name for entry in entries if sha256 is not None and entry.sha256 == sha256), None)
