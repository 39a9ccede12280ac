"""Draws the charts of the report as SVG: windows of a stream over time, and the course of a column. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from streamer.drift.day import SLOTS, slot_of
from streamer.drift.row_file import FILE_S
from streamer.drift_evaluation.period import Period, local_text
from streamer.drift_evaluation.stream_result import Course, StreamResult, WindowPoint

#: Width of a strip and of a chart in units of the drawing, and height of a chart.
_STRIP, _WIDTH, _HEIGHT = 600.0, 640.0, 170.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 8.0, 10.0, 24.0
#: Classes of the colours in which windows are drawn, and what they mean.
STATES = {
    "drift": "drift",
    "flagged": "over a threshold",
    "recurring": "recurs every day",
    "ok": "as the reference",
    "stale": "another model",
    "unknown": "cannot be judged",
}


def strip(stream: StreamResult, period: Period) -> str:
    """Return one bar with the state of a stream over the period."""
    scale = _STRIP / (period.end - period.begin)
    parts = [f'<rect class="none" width="{_STRIP:g}" height="18" rx="3"/>']
    for state, begin, end in _runs(stream, period):
        title = f"{local_text(begin)} to {local_text(end)}: {STATES[state]}"
        parts.append(
            f'<rect class="{state}" x="{(begin - period.begin) * scale:.2f}" '
            f'width="{(end - begin) * scale:.2f}" height="18"><title>{escape(title)}</title></rect>'
        )
    return (
        f'<svg viewBox="0 0 {_STRIP:g} 18" preserveAspectRatio="none" role="img" class="strip" '
        f'aria-label="{escape(stream.stream)}: {stream.verdict.value}">{"".join(parts)}</svg>'
    )


def _runs(stream: StreamResult, period: Period) -> list[tuple[str, float, float]]:
    """Return runs of equal state; a window counts from the one before it to its end."""
    runs: list[tuple[str, float, float]] = []
    before = period.begin
    for window in stream.windows:
        state = _state(window)
        step = min(window.end - before, FILE_S)
        begin = window.end - step
        if state == "unknown" and _is_gap(stream, begin, window.end):
            before = window.end
            continue
        if runs and runs[-1][0] == state and begin - runs[-1][2] < 1:
            runs[-1] = state, runs[-1][1], window.end
        else:
            runs.append((state, begin, window.end))
        before = window.end
    return runs


def _is_gap(stream: StreamResult, begin: float, end: float) -> bool:
    return any(begin >= first and end <= last for first, last in stream.gaps)


def _state(window: WindowPoint) -> str:
    if window.drift:
        return "drift"
    if window.outcome != "scored":
        return "unknown"
    if window.recurring:
        return "recurring"
    if window.ratio >= 1:
        return "flagged"
    return "stale" if window.stale else "ok"


def column_chart(stream: StreamResult, column: str, period: Period) -> str:
    """Return a chart of half-hour means of a column in the period, over a band for the reference.

    The band is the mean at that time of day and two standard deviations to either side.
    """
    now = stream.course.column(column)
    band = _band(stream, column, now)
    if not now:
        return ""
    values = [value for _, value in now] + [value for _, low, high in band for value in (low, high)]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or max(abs(high) * 0.05, 0.5)
    low, high = low - margin, high + margin

    def x(at: float) -> float:
        return _LEFT + (at - period.begin) / (period.end - period.begin) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axis(period, low, high, x, y)]
    for episode in stream.episodes:
        end = period.end if episode.goes_on else episode.until
        parts.append(
            f'<rect class="episode" x="{x(episode.since):.1f}" y="{_TOP:g}" '
            f'width="{max(1.0, x(end) - x(episode.since)):.1f}" height="{_HEIGHT - _TOP - _BOTTOM:g}"/>'
        )
    if band:
        upper = " ".join(f"{x(at):.1f},{y(top):.1f}" for at, _, top in band)
        lower = " ".join(f"{x(at):.1f},{y(bottom):.1f}" for at, bottom, _ in reversed(band))
        parts.append(f'<polygon class="band" points="{upper} {lower}"/>')
    for piece in _pieces(now):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in piece)
        parts.append(f'<polyline class="line" points="{points}"/>')
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'aria-label="{escape(column)} of {escape(stream.stream)}">{"".join(parts)}</svg>'
    )


def _pieces(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Divide points, at the middle of their half hours, where half hours are missing."""
    pieces: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not pieces or at + FILE_S / 2 - pieces[-1][-1][0] > 1.5 * FILE_S:
            pieces.append([])
        pieces[-1].append((at + FILE_S / 2, value))
    return pieces


def _band(
    stream: StreamResult, column: str, now: Sequence[tuple[float, float]]
) -> list[tuple[float, float, float]]:
    """Return (time, low, high) of what the reference had, blended over an hour and a half to either side."""
    course: Course = stream.reference_course
    known = course.column(column)
    if len(known) < 4 and stream.reference is not None:
        course = _course_of_rows(stream)
        known = course.column(column)
    if len(known) < 4:
        return []
    slots = slot_of(np.array([at for at, _ in known]))
    values = np.array([value for _, value in known])
    band = []
    for at, _ in now:
        slot = slot_of(np.array([at]))[0]
        apart = np.minimum(np.abs(slots - slot), SLOTS - np.abs(slots - slot))
        near = values[apart <= 3] if (apart <= 3).sum() >= 4 else values
        mean, deviation = float(near.mean()), float(near.std())
        band.append((at + FILE_S / 2, mean - 2 * deviation, mean + 2 * deviation))
    return band


def _course_of_rows(stream: StreamResult) -> Course:
    """Return the half hours of a stored reference, from the rows that it keeps."""
    course = Course()
    if stream.reference is not None:
        table = stream.reference.table
        half_hours = np.floor(table.at / FILE_S)
        for half_hour in np.unique(half_hours):
            course.add(float(half_hour * FILE_S), table.numbers[half_hours == half_hour])
    return course


def _axis(
    period: Period, low: float, high: float, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    """Return the grid with its labels."""
    parts = []
    for share in (0.1, 0.5, 0.9):
        value = low + share * (high - low)
        parts.append(
            f'<line class="grid" x1="{_LEFT:g}" x2="{_WIDTH - _RIGHT:g}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/>'
            f'<text x="{_LEFT - 6:g}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        at = period.begin + share * (period.end - period.begin)
        parts.append(
            f'<text x="{x(at):.1f}" y="{_HEIGHT - 6:g}" text-anchor="{anchor}">{local_text(at)[5:]}</text>'
        )
    return "".join(parts)
