"""Shows the figures of models as tables of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from streamer.core.terminal import Table
from streamer.evaluation.coco_score import SIZES
from streamer.evaluation.model_score import Estimate, ModelScore, difference


def score_tables(scores: Sequence[ModelScore], part: str) -> list[Table]:
    """Return a table of all models, one of classes and sizes, and one of differences to the first model."""
    first = scores[0]
    empty = int(first.point.is_empty.sum())
    head = ("MODEL", "mAP50", "mAP50-95", "FALSE/EMPTY", "THRESHOLD", "MS")
    rows = tuple(
        (
            score.name,
            shown(score.map50),
            shown(score.map50_95),
            shown(score.false_per_empty),
            f"{score.point.threshold:.2f}",
            f"{score.run_ms:.1f}",
        )
        for score in scores
    )
    title = f"{first.picture_count} pictures of {part}, {empty} of them empty; in brackets: 95 % intervals"
    tables = [Table(title, head, rows, frozenset(head[1:]), "; ".join(_lacking(scores)))]
    names = tuple(score.name for score in scores)
    tables.append(
        Table(
            "AP50 by class, and AP50-95 by size of the object",
            ("CLASS", "OBJECTS", *names),
            (
                *(
                    (
                        name,
                        str(int(first.point.objects[index])),
                        *(figure(float(score.coco.ap50[index])) for score in scores),
                    )
                    for index, name in enumerate(first.classes)
                ),
                *((size, "", *(figure(score.coco.by_size[size]) for score in scores)) for size in SIZES),
            ),
            frozenset({"OBJECTS", *names}),
        )
    )
    if len(scores) > 1:
        changes = tuple((score.name, shown(difference(score, first), signed=True)) for score in scores[1:])
        tables.append(
            Table(f"mAP50 compared with {first.name}", ("MODEL", "CHANGE"), changes, frozenset({"CHANGE"}))
        )
    return tables


def tables_text(tables: Sequence[Table]) -> str:
    """Return the tables as plain text with aligned columns."""
    blocks = []
    for table in tables:
        lines = [table.head, *table.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
        texts = [
            "  ".join(
                cell.rjust(width) if name in table.numbers else cell.ljust(width)
                for cell, width, name in zip(line, widths, table.head, strict=True)
            ).rstrip()
            for line in lines
        ]
        blocks.append("\n".join([table.title, *texts, *([table.note] if table.note else [])]))
    return "\n\n".join(blocks)


def shown(estimate: Estimate, *, signed: bool = False) -> str:
    """Return a figure with its interval, such as `.792 (.741, .836)`."""
    if math.isnan(estimate.value):
        return "-"
    limits = ", ".join(figure(limit, signed=signed) for limit in (estimate.low, estimate.high))
    return f"{figure(estimate.value, signed=signed)} ({limits})"


def figure(value: float, *, signed: bool = False) -> str:
    """Return a figure with three decimals, and a dash if there is none."""
    if math.isnan(value):
        return "-"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def _lacking(scores: Sequence[ModelScore]) -> list[str]:
    return [
        f"{score.name} lacks {', '.join(score.lacking)}: 0 in its means" for score in scores if score.lacking
    ]
