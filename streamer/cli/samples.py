"""Implements ``streamer samples``: the commands ``stats``, ``verify`` and ``export``."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.command import Command, Group, Json, epilog, option, terminal_of
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

EXIT_UNSOUND = 4

app = typer.Typer(
    cls=Group,
    add_completion=False,
    help="Work with the samples that the service has collected (docs/sampling.md).",
    epilog=epilog(
        """
        streamer samples stats
        streamer samples verify --in /srv/samples
        streamer samples stats --in s3://ml-active-learning/parcels
        streamer samples export --format coco --out parcels/
        """,
        exit_codes={
            0: "done",
            EXIT_USAGE: "wrong option, no samples or a package is missing",
            3: "a file cannot be read or written",
            EXIT_UNSOUND: "a sample is damaged",
            EXIT_INTERRUPTED: "Ctrl-C",
        },
    ),
)
Source = Annotated[
    str | None,
    option(
        "--in",
        "folder of samples, or s3://BUCKET/PREFIX (default: where the service's settings store them)",
        value="PLACE",
    ),
]


@app.command(cls=Command, short_help="count them by reason, stream, day, model and label")
def stats(source: Source = None, json: Json = False) -> int:
    """Count the collected samples by reason, stream, day, model and label."""
    from streamer.core.terminal import write_tables  # noqa: PLC0415 - as the others
    from streamer.datasets.source import open_source, read_samples  # noqa: PLC0415 - the extra `server`
    from streamer.datasets.statistics import count  # noqa: PLC0415 - see above

    with open_source(source) as opened:
        statistics = count(read_samples(opened))
    if json:
        sys.stdout.write(dumps(statistics.to_dict(), ensure_ascii=False, indent=2) + "\n")
    else:
        write_tables(statistics.tables, statistics.to_text)
    return 0


@app.command(cls=Command, short_help="check that every sample is complete")
def verify(ctx: typer.Context, source: Source = None) -> int:
    """Check that every sidecar has its image, that checksums and sizes are right, and that files can be read.

    An image without a sidecar is no error: its delivery is under way, or a crash interrupted it.
    """
    from streamer.datasets import source as samples  # noqa: PLC0415 - see stats

    terminal = terminal_of(ctx)
    with samples.open_source(source) as opened:
        result = samples.verify(opened)
    for problem in result.problems:
        terminal.line(problem, always=True)
    for key in result.incomplete:
        terminal.line(f"{key}: no sidecar (yet)")
    sys.stdout.write(f"{result.samples} samples, {len(result.problems)} problems\n")
    return EXIT_UNSOUND if result.problems else 0


@app.command(
    cls=Command,
    short_help="write a COCO, YOLO or Label Studio dataset",
    epilog=epilog(
        """
        streamer samples export --format coco --out parcels/
        streamer samples export --format yolo --split 90,10,0 --out parcels-yolo/
        streamer samples export --format label-studio --address s3://b/ --out tasks/
        streamer samples export --format coco --reason random --split 0,0,100 --out t/
        """,
        notes="""
        The part test has samples of reason random only: all others were selected because they are hard.
        """,
    ),
)
def export(
    ctx: typer.Context,
    dataset_format: Annotated[
        Literal["coco", "yolo", "label-studio"], option("--format", "annotation format (required)")
    ],
    out: Annotated[Path, option("--out", "folder to create (required)", value="DIR", parser=Path)],
    source: Source = None,
    split: Annotated[
        str, option("--split", "shares of train, val and test (80,10,10)", value="A,B,C")
    ] = "80,10,10",
    reason: Annotated[
        list[str] | None,
        option("--reason", "only samples taken for this reason; may be repeated", value="REASON"),
    ] = None,
    below_threshold: Annotated[
        bool, option("--below-threshold", "also boxes with a score below the caller's threshold")
    ] = False,
    parts: Annotated[
        Path | None,
        option(
            "--parts",
            "file that keeps the part of each sample from export to export (parts.json in the folder of "
            "samples; none for a bucket)",
            value="FILE",
            parser=Path,
        ),
    ] = None,
    address: Annotated[
        str | None,
        option(
            "--address",
            "put in front of the path of an image in Label Studio's tasks (/data/local-files/?d=)",
            value="URL",
        ),
    ] = None,
) -> int:
    """Write the collected samples as a dataset, with the model's boxes as pre-annotations.

    All images are upright. Samples are assigned to train, val or test by stream and hour, never by frame, and
    near-duplicates always together. A sample stays in its part in every later export.
    """
    from streamer.datasets import export as dataset  # noqa: PLC0415 - see stats
    from streamer.datasets.sample_parts import PartsFile  # noqa: PLC0415 - see stats
    from streamer.datasets.source import FolderSource, open_source  # noqa: PLC0415 - see stats
    from streamer.datasets.statistics import SUBSETS, Split  # noqa: PLC0415 - see stats

    terminal = terminal_of(ctx)
    shares = Split.parse(split)
    with open_source(source) as opened:
        if parts is None and isinstance(opened, FolderSource):
            parts = opened.folder / "parts.json"
        options = dataset.ExportOptions(
            dataset.DatasetFormat(dataset_format),
            shares,
            frozenset(reason or ()),
            below_threshold,
            dataset.DEFAULT_ADDRESS if address is None else address,
            None if parts is None else PartsFile(parts),
        )
        exported = dataset.export(opened, out, options, terminal.status)
    terminal.close()
    for note in exported.notes:
        terminal.line(note, always=True)
    counts = ", ".join(f"{exported.images[subset]} {subset}" for subset in SUBSETS)
    sys.stdout.write(f"{out}: {exported.images.total()} images ({counts})\n")
    return 0
