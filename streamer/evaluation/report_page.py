"""Writes the report of an evaluation: one HTML file without scripts that needs no other file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from streamer.core.terminal import Table
from streamer.datasets.sample import CannotWrite
from streamer.evaluation.command import Evaluation
from streamer.evaluation.model_score import ModelScore
from streamer.evaluation.precision_recall_chart import chart
from streamer.evaluation.score_tables import score_tables
from streamer.evaluation.worst_pictures import WorstPicture, worst_pictures

_STYLE = """
:root { color-scheme: light dark; --text: #1a1a1a; --soft: #5c5c5c; --line: #d0d0d0; --page: #fff;
  --box: #f5f6f8; --heat: 37 99 235; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececec; --soft: #a8a8a8; --line: #444; --page: #16181c; --box: #20242a;
    --heat: 96 165 250; }
}
body { margin: 0 auto; padding: 1rem; max-width: 70rem; color: var(--text); background: var(--page);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.number, th.number { text-align: right; }
table.confusion td { text-align: center; }
.charts, .pictures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
figure { margin: 0; padding: .5rem; background: var(--box); border-radius: .5rem; }
figure img, figure svg { width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; margin-top: .35rem; overflow-wrap: anywhere; }
svg text { fill: var(--text); } svg .grid { stroke: var(--line); } svg path { fill: none; stroke-width: 2; }
"""


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write the report. Raises CannotWrite, CannotRead or DamagedSample."""
    text = report_text(evaluation)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CannotWrite(f"{path}: {error.strerror or error}") from error


def report_text(evaluation: Evaluation) -> str:
    """Return the report as HTML."""
    scores = evaluation.scores
    names = " and ".join(score.name for score in scores)
    body = [
        f"<h1>Evaluation of {escape(names)}</h1>",
        f"<p>{len(evaluation.pictures)} pictures of the part {evaluation.part} of "
        f"{escape(str(evaluation.folder))}</p>",
        f'<p class="soft">Digest of the set: {evaluation.digest}</p>',
        *(
            f'<p class="soft">{escape(score.name)}: {escape(score.description)}, SHA-256 {score.sha256}</p>'
            for score in scores
        ),
    ]
    for table in score_tables(scores, evaluation.part):
        body += [f"<h2>{escape(table.title)}</h2>", _table(table)]
    body += ["<h2>Precision by recall, at an IoU of 0.5</h2>", '<div class="charts">']
    body += [
        f"<figure>{chart(score)}<figcaption>{escape(score.name)}</figcaption></figure>" for score in scores
    ]
    body.append("</div>")
    for score in scores:
        body += [f"<h2>Confusions of {escape(score.name)}</h2>", _confusion_note(score), _confusion(score)]
    for score in scores:
        worst = worst_pictures(evaluation.pictures, score)
        body.append(f"<h2>Worst pictures of {escape(score.name)}</h2>")
        body.append(_pictures(worst) if worst else "<p>Every object was found, and no box is false.</p>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Evaluation of {escape(names)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ("number" if name in table.numbers else "" for name in table.head)
        inside = (
            f'<{tag} class="{kind}">{escape(cell)}</{tag}>' if kind else f"<{tag}>{escape(cell)}</{tag}>"
            for cell, kind in zip(cells, kinds, strict=True)
        )
        return f"<tr>{''.join(inside)}</tr>"

    rows = "\n".join(row(cells, "td") for cells in table.rows)
    note = f'<p class="soft">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table>{row(table.head, "th")}\n{rows}</table></div>{note}'


def _confusion_note(score: ModelScore) -> str:
    return (
        f'<p class="soft">Rows are true classes, columns what was found, at a score of '
        f"{score.point.threshold:.2f} and an IoU of 0.5.</p>"
    )


def _confusion(score: ModelScore) -> str:
    names = (*score.classes, "nothing")
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = [f"<tr><th></th>{head}</tr>"]
    for number, (name, counts) in enumerate(zip(names, score.point.confusion.tolist(), strict=True)):
        most = max(sum(counts), 1)
        cells = []
        for column, count in enumerate(counts):
            if number == column == len(names) - 1:
                cells.append("<td></td>")  # what is nowhere cannot be counted
            else:
                cells.append(
                    f'<td style="background: rgb(var(--heat) / {0.6 * count / most:.2f})">{count}</td>'
                )
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    return f'<div class="wide"><table class="confusion">{"".join(rows)}</table></div>'


def _pictures(worst: Sequence[WorstPicture]) -> str:
    figures = "\n".join(
        f'<figure><img alt="{escape(picture.caption)}" src="{picture.data_uri}" width="{picture.width}" '
        f'height="{picture.height}">'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for picture in worst
    )
    return (
        '<p class="soft">Solid green: objects that were found. Dashed orange: missed. Red: false boxes, with '
        f'class and score.</p><div class="pictures">{figures}</div>'
    )
