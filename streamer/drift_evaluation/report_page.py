"""Writes the report of an evaluation: one HTML file without scripts that needs no other file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from streamer.drift.day import HOUR_S
from streamer.drift.rows import NUMERIC
from streamer.drift_evaluation.charts import STATES, column_chart, strip
from streamer.drift_evaluation.document import in_order, what_of
from streamer.drift_evaluation.fleet_result import FleetResult
from streamer.drift_evaluation.period import local_text
from streamer.drift_evaluation.stream_result import FoundEpisode, StreamResult, Verdict
from streamer.drift_evaluation.style import STYLE

_TITLES = {
    Verdict.DRIFT: "Drift",
    Verdict.NONE: "No drift",
    Verdict.CANNOT_JUDGE: "Cannot judge",
}
#: Charts of one stream, and streams with sections of their own.
_CHARTS, _SECTIONS = 3, 40


def report_text(result: FleetResult, evidently_pages: Sequence[str] = ()) -> str:
    """Return the report; for the streams ``evidently_pages`` there are pages of Evidently beside it."""
    streams = in_order(result)
    drifting = [stream for stream in streams if stream.verdict is Verdict.DRIFT]
    body = [
        f'<header class="{result.verdict.value}"><h1>{_TITLES[result.verdict]}</h1>'
        f"<p>{escape(result.summary)}</p></header>",
        _facts(result),
        *_together(result),
        "<h2>Streams</h2>",
        _legend(),
        _table(result, streams),
    ]
    for stream in drifting[:_SECTIONS]:
        body += _section(result, stream, stream.stream in evidently_pages)
    if len(drifting) > _SECTIONS:
        body.append(f"<p>{len(drifting) - _SECTIONS} more streams have drifted; drift.json has them.</p>")
    body += _others(streams)
    body += ["<h2>Replicas</h2>", _replicas(result)]
    body += _list("Left out", result.file_notes, result.left_out)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_TITLES[result.verdict]}: {escape(result.place)}</title>\n<style>{STYLE}</style>\n"
        "</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def page_name(stream: str) -> str:
    """Return the file name of the page of Evidently about a stream."""
    return f"evidently-{stream}.html"


def _facts(result: FleetResult) -> str:
    engine = (
        "Evidently has confirmed the beginning of each episode."
        if not result.engine_problem
        else f"The builtin engine decided: {result.engine_problem}."
    )
    pairs = [
        ("Rows", result.place),
        ("Period", f"{result.period} ({result.zone})"),
        ("Compared with", result.reference),
        ("Streams", f"{len(result.streams)}, {result.judged_days:.1f} stream-days judged"),
        ("Replicas", str(len(result.replicas))),
        (
            "Chance",
            f"{result.expected_by_chance:.2f} false episodes are expected; "
            f"{result.needed} or more streams in drift, or a severe one, count as drift",
        ),
        ("Engine", engine),
    ]
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
    return f"<dl>{items}</dl>"


def _together(result: FleetResult) -> Iterable[str]:
    for each in result.together():
        where = f" on {', '.join(each.replicas)}" if each.replicas else ""
        what = f" ({', '.join(each.columns)})" if each.columns else ""
        yield (
            f'<p class="hint">{len(each.streams)} streams{escape(where)} drifted between '
            f"{local_text(each.begin)} and {local_text(each.end)[11:]}{escape(what)}: "
            f"{escape(', '.join(each.streams))}. Look for one cause.</p>"
        )
    missing = result.missing()
    if missing:
        items = "".join(f"<li>{escape(text)}</li>" for text in missing)
        yield f'<div class="hint">Missing replicas:<ul>{items}</ul></div>'


def _legend() -> str:
    items = "".join(
        f'<span><i class="{name}"></i>{escape(text)}</span>'
        for name, text in (*STATES.items(), ("none", "no rows"))
    )
    return f'<p class="legend">{items}</p>'


def _table(result: FleetResult, streams: Sequence[StreamResult]) -> str:
    rows = []
    for stream in streams:
        name = escape(stream.stream)
        link = f'<a href="#{name}">{name}</a>' if stream.verdict is Verdict.DRIFT else name
        moved = f"{len(stream.replicas)} replicas" if len(stream.replicas) > 1 else "".join(stream.replicas)
        rows.append(
            f'<tr><th scope="row">{link}</th><td class="verdict {stream.verdict.value}">'
            f"{_TITLES[stream.verdict]}</td><td>{strip(stream, result.period)}</td>"
            f'<td class="what">{escape(what_of(stream))}</td><td class="number">{stream.rows}</td>'
            f"<td>{escape(moved)}</td></tr>"
        )
    begin, end = (local_text(at)[5:] for at in (result.period.begin, result.period.end))
    return (
        '<div class="wide"><table><thead><tr><th>Stream</th><th></th>'
        f'<th class="time"><span>{begin}</span><span>{end}</span></th><th>What</th>'
        '<th class="number">Rows</th><th>Replica</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _section(result: FleetResult, stream: StreamResult, has_page: bool) -> list[str]:
    charts = "".join(
        f"<figure><figcaption>{escape(column)}</figcaption>"
        f"{column_chart(stream, column, result.period)}</figure>"
        for column in [name for name in stream.moved if name in NUMERIC][:_CHARTS]
    )
    body = [f'<section id="{escape(stream.stream)}"><h2>{escape(stream.stream)}</h2>']
    body += [_episode(episode) for episode in stream.episodes]
    if charts:
        body.append(
            '<p class="soft">Means of half hours in the period, and what the reference had at that time of '
            f'day (mean and two standard deviations).</p><div class="charts">{charts}</div>'
        )
    body += [f'<p class="soft">{escape(note)}</p>' for note in stream.notes]
    if len(stream.replicas) > 1:
        spans = sorted(stream.spans.items(), key=lambda item: item[1])
        text = "; ".join(
            f"{name} from {local_text(first)[5:]} to {local_text(last)[5:]}" for name, (first, last) in spans
        )
        body.append(f'<p class="soft">Measured by {escape(text)}.</p>')
    keys = result.samples.get(stream.stream, [])
    if keys:
        shown = "".join(f"<li><code>{escape(key)}</code></li>" for key in keys)
        body.append(f"<details><summary>{len(keys)} samples of this drift, to look at and to label</summary>")
        body.append(f"<ul>{shown}</ul></details>")
    if has_page:
        page = escape(page_name(stream.stream))
        body.append(f'<p><a href="{page}">Report of Evidently about the worst window</a></p>')
    return [*body, "</section>"]


def _episode(episode: FoundEpisode) -> str:
    lasted = "goes on" if episode.goes_on else f"until {local_text(episode.until)}"
    hours = (episode.until - episode.since) / HOUR_S
    changed = ""
    if episode.changed_at is not None:
        changed = f" The change was {episode.kind} and began about {local_text(episode.changed_at)}."
    rows = "".join(
        f'<tr><th scope="row">{escape(column.name)}</th>'
        f'<td><span class="bar" style="width: {min(12.0, 2 * column.ratio):.1f}rem"></span> '
        f"{column.ratio:.1f} of its threshold</td><td>{escape(column.basis)}</td>"
        f"<td>{_medians(column.medians)}</td></tr>"
        for column in episode.moved
    )
    return (
        f'<p><b class="{episode.severity}">{episode.severity}</b> since {local_text(episode.since)}, '
        f"{lasted} ({hours:.1f} h). {changed}</p>"
        '<div class="wide"><table><thead><tr><th>Column</th><th>Greatest distance</th><th>Basis</th>'
        f"<th>Median of the reference and of the window</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _medians(medians: tuple[float, float] | None) -> str:
    return "" if medians is None else f"{medians[0]:.4g} → {medians[1]:.4g}"


def _others(streams: Sequence[StreamResult]) -> list[str]:
    """Return what should be known of streams without drift: why they cannot be judged, gaps, notes."""
    items = []
    for stream in streams:
        notes = [] if stream.verdict is Verdict.DRIFT else list(stream.notes)
        if stream.verdict is Verdict.CANNOT_JUDGE:
            notes.insert(0, f"It cannot be judged: {stream.reason}.")
        if stream.gaps:
            gaps = ", ".join(
                f"{local_text(begin)[5:]} to {local_text(end)[5:]}" for begin, end in stream.gaps[:5]
            )
            more = f" and {len(stream.gaps) - 5} more" if len(stream.gaps) > 5 else ""
            notes.append(f"No rows {gaps}{more}.")
        if notes:
            items.append(f"<li><b>{escape(stream.stream)}</b>: {escape(' '.join(notes))}</li>")
    return ["<h2>Gaps and notes</h2>", f"<ul>{''.join(items)}</ul>"] if items else []


def _replicas(result: FleetResult) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{local_text(replica.first)}</td>'
        f"<td>{local_text(replica.last)}</td>"
        f'<td class="number">{replica.files}</td><td class="number">{len(replica.streams)}</td></tr>'
        for name, replica in sorted(result.replicas.items())
    )
    return (
        '<div class="wide"><table><thead><tr><th>Replica</th><th>First rows</th><th>Last rows</th>'
        '<th class="number">Files</th><th class="number">Streams</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _list(title: str, notes: Sequence[str], total: int) -> list[str]:
    if not notes:
        return []
    more = [f"and {total - len(notes)} more"] if total > len(notes) else []
    items = "".join(f"<li>{escape(note)}</li>" for note in (*notes, *more))
    return [f"<h2>{title}</h2>", f"<ul>{items}</ul>"]
