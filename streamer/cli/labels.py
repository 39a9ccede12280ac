"""Implements ``streamer labels``: the commands ``import`` and ``delete``."""

from __future__ import annotations

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.command import Command, Group, Json, Quiet, epilog, option, terminal_of
from streamer.cli.exit_codes import EXIT_USAGE
from streamer.core.signals import EXIT_INTERRUPTED

app = typer.Typer(
    cls=Group,
    add_completion=False,
    help="Bring the labels of a labelling tool into a labelled set (docs/training.md).",
    epilog=epilog(
        """
        streamer labels import tasks.json --from label-studio --in tasks/ --out set/
        streamer labels import cvat.zip --from coco --in parcels/ --out set/
        streamer labels import data.yaml --from yolo --out set/
        streamer labels delete set/ 3f0c…e1 --by ann
        """,
        exit_codes={
            0: "done",
            EXIT_USAGE: "wrong option, or a package is missing",
            3: "a file cannot be read or written",
            4: "the labels, the set or a picture is wrong; nothing was imported",
            EXIT_INTERRUPTED: "Ctrl-C",
        },
    ),
)
By = Annotated[str, option("--by", "who labelled, if the export does not say", value="NAME")]


@app.command(
    "import",
    cls=Command,
    short_help="read the export of Label Studio, CVAT or a YOLO tool",
    epilog=epilog(
        """
        streamer labels import tasks.json --from label-studio --in tasks/ --out set/
        streamer labels import cvat.zip --from coco --in parcels/ --out set/ --by ann
        streamer labels import cvat.zip --from yolo --out set/ --split 70,15,15
        streamer labels import data.yaml --from yolo --out set/ --classes bolt,nut
        """,
        notes="""
        A second import adds new pictures and takes over labels that are newer than those of the set. Deleted
        pictures stay deleted. A picture stays in its part: what was once in test is never trained on.
        """,
    ),
)
def import_labels(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="export: a JSON file, data.yaml, obj.data, a folder or a ZIP file with them",
            parser=Path,
        ),
    ],
    source_format: Annotated[
        Literal["label-studio", "coco", "yolo"], option("--from", "format of the export (required)")
    ],
    out: Annotated[
        Path, option("--out", "labelled set to create or to add to (required)", value="DIR", parser=Path)
    ],
    pictures: Annotated[
        str | None,
        option(
            "--in",
            "where the pictures are: a folder of images or of samples, or s3://BUCKET/PREFIX (default: the "
            "folder of FILE)",
            value="PLACE",
        ),
    ] = None,
    split: Annotated[
        str | None,
        option("--split", "shares of train, val and test (as the export says, else 80,10,10)", value="A,B,C"),
    ] = None,
    classes: Annotated[
        str | None, option("--classes", "classes of the set, in this order; others are refused", value="A,B")
    ] = None,
    by: By = "",
    empty: Annotated[
        Literal["nothing", "skip"],
        option(
            "--empty",
            "what a picture without boxes means in COCO and YOLO: nothing is in it, or it is not labelled "
            "yet (nothing)",
        ),
    ] = "nothing",
    skip_wrong: Annotated[
        bool, option("--skip-wrong", "leave out pictures with a wrong box, and those that are not found")
    ] = False,
    replace: Annotated[
        bool, option("--replace", "the export wins, also against newer labels and against deletions")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Merge the labels of an export into a labelled set, which keeps who labelled and when.

    Wrong boxes, unknown classes and unknown pictures are refused with their task or line, before anything is
    written. Near-duplicates are never divided between train, val and test.
    """
    from streamer.datasets.import_command import import_into  # noqa: PLC0415 - the extra `server`
    from streamer.datasets.label_import import ImportOptions  # noqa: PLC0415 - see above
    from streamer.datasets.statistics import Split  # noqa: PLC0415 - see above

    terminal = terminal_of(ctx)
    options = ImportOptions(
        f"{source_format} {file.name}",
        tuple(name.strip() for name in (classes or "").split(",") if name.strip()),
        by,
        empty_is_nothing=empty == "nothing",
        skip_wrong=skip_wrong,
        replace=replace,
    )
    shares = None if split is None else Split.parse(split)
    report = import_into(out, file, source_format, pictures, shares, options, on_progress=terminal.status)
    terminal.close()
    if not json:
        for note in report.notes:
            terminal.line(note, always=True)
    sys.stdout.write(
        dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n" if json else report.to_text(out)
    )
    return 0


@app.command(
    "delete",
    cls=Command,
    short_help="take pictures out of a set, for good",
    epilog=epilog("streamer labels delete set/ 3f0c5b…e1 --by ann"),
)
def delete(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="labelled set", parser=Path)],
    ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="ids of pictures, or their first digits (at least 6)")
    ],
    by: By = "",
) -> int:
    """Take pictures out of a set. Their label files stay, so that no later import brings them back."""
    from streamer.datasets.import_command import delete_from  # noqa: PLC0415 - see import_labels

    for name in delete_from(folder, ids, by):
        sys.stdout.write(f"{name} is deleted\n")
    return 0
