"""Implements the group ``streamer models``, and its commands ``list`` and ``check``, which change no file."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.assets import MODELS_DIR
from streamer.cli import models_files, models_pull
from streamer.cli.command import (
    Catalogue,
    Command,
    Group,
    Json,
    Quiet,
    epilog,
    option,
    terminal_of,
    whole_number,
)
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED, EXIT_TERMINATED

EXIT_REFUSED = 4
EXIT_UNAVAILABLE = 8

app = typer.Typer(
    cls=Group,
    add_completion=False,
    help="List, download, check and optimise detection models (ONNX files).",
    epilog=epilog(
        """
        streamer models list
        streamer models pull yolox_nano
        streamer models check best.onnx
        streamer models optimize best.onnx --precision int8 --images photos/
        """,
        exit_codes={
            0: "done",
            EXIT_USAGE: "wrong option, name, folder or registry",
            3: "the download failed",
            EXIT_REFUSED: "the service refuses the model",
            5: "a file cannot be written or exists already",
            6: "the download is another file",
            7: "no known checksum and no --trust",
            EXIT_UNAVAILABLE: "a package or device is missing",
            EXIT_INTERRUPTED: "Ctrl-C",
            EXIT_TERMINATED: "SIGTERM",
        },
    ),
)
app.add_typer(models_pull.app)
app.add_typer(models_files.app)


@app.command(
    "list",
    cls=Command,
    short_help="installed and known models",
    epilog=epilog(
        """
        streamer models list
        streamer models list --in /srv/models
        streamer models list --json | jq -r '.known[] | .name + ": " + .licence'
        """
    ),
)
def list_models(
    ctx: typer.Context,
    folder: Annotated[
        Path | None, option("--in", "folder of models (the service's models/)", value="DIR", parser=Path)
    ] = None,
    catalogue: Catalogue = None,
    json: Json = False,
) -> int:
    """List the installed models and the known models.

    Installed are the files in a folder, and the files that the service is set to serve; known are those that
    `pull` can download. Both have name, size, licence, classes and input size. No model is run or downloaded.
    """
    from streamer.config.settings import SettingsError, load_settings  # noqa: PLC0415 - loads pydantic
    from streamer.core.terminal import write_tables  # noqa: PLC0415 - as the others
    from streamer.model_zoo.model_folder import (  # noqa: PLC0415 - see above
        find_installed,
        list_json,
        list_tables,
        list_text,
    )
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - see above

    serving: dict[str, Path] = {}
    try:
        serving = load_settings().models()
    except SettingsError as error:
        terminal_of(ctx).line(f"{error}; the list does not show which models the service serves", always=True)
    folder = folder or MODELS_DIR
    registry = read_registry(catalogue or MODELS_DIR / "catalogue.json")
    installed = find_installed(folder, registry, serving)
    if json:
        text = dumps(list_json(folder, installed, registry), ensure_ascii=False, indent=2)
        sys.stdout.write(text + "\n")
    else:
        listed = (folder, installed, registry)
        write_tables(lambda: list_tables(*listed), lambda: list_text(*listed))
    return 0


@app.command(
    cls=Command,
    short_help="report whether the service serves a file, how, and how fast",
    epilog=epilog(
        """
        streamer models check best.onnx
        streamer models check best.onnx --device cuda --batch-max 16
        streamer models check best.onnx --json | jq .timings
        """,
        exit_codes={
            0: "the service would serve the file",
            EXIT_REFUSED: "it would refuse it",
            EXIT_UNAVAILABLE: "the device cannot be used",
        },
    ),
)
def check(
    ctx: typer.Context,
    file: models_files.ModelFile,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "tensorrt", "openvino"],
        option("--device", "device to run it on, as in the setting DEVICE (auto)"),
    ] = "auto",
    batch_max: Annotated[
        int,
        option(
            "--batch-max",
            "largest batch, as in the setting BATCH_MAX (8)",
            value="N",
            parser=whole_number(1, 64),
        ),
    ] = 8,
    no_timing: Annotated[bool, option("--no-timing", "skip the time measurements")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Load a model exactly as the service would, and report what it is and how fast.

    The report has family, inputs, outputs, classes, batch sizes, the fields of the manifest, and how long
    each batch takes on one core and on all cores. For a file that the service would refuse, it says what was
    expected, what was found, and how to export a file that works.
    """
    from streamer.model_tools.check_report import report_json, report_text  # noqa: PLC0415 - loads onnxruntime
    from streamer.model_tools.inspection import inspect_model  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    result = inspect_model(
        file, device=device, batch_max=batch_max, timing=not no_timing, on_progress=terminal.status
    )
    known = _known_as(result.sha256)
    terminal.close()  # clears the status line, which would precede the report
    if json:
        text = dumps(report_json(result, known), ensure_ascii=False, indent=2)
    else:
        text = report_text(result, known)
    sys.stdout.write(text + "\n")
    return EXIT_REFUSED if result.refusal is not None else 0


def _known_as(sha256: str | None) -> str | None:
    """Return the name of the known model with this checksum, else None."""
    from streamer.model_zoo.download_url import BadRequest  # noqa: PLC0415 - see list_models
    from streamer.model_zoo.registry import read_registry  # noqa: PLC0415 - see list_models

    try:
        entries = read_registry(MODELS_DIR / "catalogue.json").entries
    except BadRequest:
        return None  # `list` and `pull` report this error; here the name is only a remark
    return next((entry.name for entry in entries if sha256 is not None and entry.sha256 == sha256), None)
