"""Implements ``streamer evaluate``."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.command import Command, Json, Quiet, epilog, option, terminal_of
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

app = typer.Typer(add_completion=False)


@app.command(
    cls=Command,
    epilog=epilog(
        """
        streamer evaluate set/ v1
        streamer evaluate set/ models/own.onnx v1 --report report.html
        streamer evaluate set/ best.onnx --part val --json | jq .models[0].map50
        """,
        notes="""
        Intervals come from a bootstrap over the pictures: they say how much a figure depends on which
        pictures the part happens to have. MS is the median of the model runs on one core, or on the device.
        """,
        exit_codes={
            0: "done",
            EXIT_USAGE: "wrong option, an empty part, no common class, or a package is missing",
            3: "a file cannot be read or written",
            4: "the set, a picture or a model is wrong",
            8: "the device cannot be used",
            EXIT_INTERRUPTED: "Ctrl-C",
        },
    ),
)
def evaluate(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="SET", help="labelled set (docs/training.md)", parser=Path)
    ],
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="ONNX files, or names of models that the service serves, such as v1"
        ),
    ],
    part: Annotated[
        Literal["train", "val", "test"], option("--part", "which pictures of the set (test)")
    ] = "test",
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt", "openvino"],
        option("--device", "device to run on, as in the setting DEVICE (cpu)"),
    ] = "cpu",
    report: Annotated[
        Path | None,
        option(
            "--report",
            "write a page with curves, confusions and the worst pictures",
            value="FILE",
            parser=Path,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score models on the labelled pictures of one part: average precision, false boxes, time.

    The models see the pictures as the service shows them to a model, and their boxes pass through the same
    post-processing. Average precision is computed by pycocotools. Classes are compared by name.
    """
    from streamer.core.terminal import write_tables  # noqa: PLC0415 - as the others
    from streamer.evaluation.command import evaluate_models  # noqa: PLC0415 - the extra `evaluate`
    from streamer.evaluation.report_page import write_report  # noqa: PLC0415 - see above
    from streamer.evaluation.score_tables import score_tables, tables_text  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    result = evaluate_models(folder, models, part, device, on_progress=terminal.status)
    if report is not None:
        terminal.status("writing the report")
        write_report(report, result)
    terminal.close()
    if json:
        sys.stdout.write(dumps(result.to_dict(), ensure_ascii=False, indent=2) + "\n")
    else:
        tables = score_tables(result.scores, part)
        write_tables(lambda: tables, lambda: tables_text(tables))
    if report is not None:
        terminal.line(f"{report} is written", always=not json)
    return 0
