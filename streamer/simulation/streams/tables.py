"""Shows reports of simulations as tables, or as text for programs and files."""

from __future__ import annotations

from collections.abc import Sequence

from streamer.core.terminal import Table
from streamer.simulation.streams.report import Report
from streamer.simulation.streams.scenario import Machine

_HEAD = ("streams", "frames/s", "results/s", "dropped", "p50 ms", "p95 ms", "p99 ms", "refused", "fairness",
         "device", "cores")  # fmt: skip
#: Most reasons that are listed in a line.
_MOST_REASONS = 4


def tables(reports: Sequence[Report], machine: Machine) -> list[Table]:
    """Return one table with a row for each simulation, and one with what needs more words."""
    rows = tuple(_row(report) for report in reports)
    first = Table(title(machine), _HEAD, rows, frozenset(_HEAD[1:]), note=_note(reports))
    details = tuple((report.mix, detail) for report in reports for detail in _details(report))
    return [first, Table("Details", ("streams", ""), details)] if details else [first]


def text(reports: Sequence[Report], machine: Machine) -> str:
    """Return the same as lines of text."""
    rows = [_HEAD, *(_row(report) for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [title(machine)]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells))
    lines += [f"{report.mix}: {detail}" for report in reports for detail in _details(report)]
    return "\n".join([*lines, _note(reports)])


def title(machine: Machine) -> str:
    """Return a line that describes the machine."""
    times = ", ".join(f"{size}: {cost:.4g} ms" for size, cost in machine.run_times.cost_ms.items())
    kind = "a GPU and" if machine.accelerator else "no GPU,"
    plural = "s" * (machine.workers > 1)
    return f"{kind} {machine.cores} cores, {machine.workers} worker{plural}, runs of {times}"


def _row(report: Report) -> tuple[str, ...]:
    used = report.utilisation
    return (
        report.mix,
        f"{report.captured_fps:.0f}",
        f"{report.delivered_fps:.1f}",
        f"{report.drop_share:.1%}",
        *(_ms(age) for age in (report.age_p50, report.age_p95, report.age_p99)),
        str(report.refused),
        f"{min((group.jain for group in report.fairness), default=1.0):.3f}",
        f"{used.device:.0%}",
        f"{used.cores:.0%}",
    )


def _ms(age: float | None) -> str:
    return "-" if age is None else f"{age:.0f}"


def _details(report: Report) -> list[str]:
    found = []
    if report.drops:
        reasons = list(report.drops.items())[:_MOST_REASONS]
        found.append("dropped: " + ", ".join(f"{reason} {share:.1%}" for reason, share in reasons))
    if report.granted and report.lowest_grant_fps is not None:
        found.append(
            f"{report.granted} streams have a granted rate, at least {report.lowest_grant_fps:g} fps"
        )
    if report.drops or report.refused:
        found += [
            f"{group.streams} streams of {group.fps:g} fps got {group.least_fps:.1f} to "
            f"{group.most_fps:.1f}, median {group.median_fps:.1f}"
            for group in report.fairness
        ]
    if report.posts is not None:
        posts = report.posts
        refused = ", ".join(f"{name} {count}" for name, count in posts["refused"].items()) or "none"
        found.append(
            f"POSTs: {posts['served_per_s']:.1f} of {posts['sent_per_s']:.1f} per second served, "
            f"p50 {_ms(posts['p50'])} ms, p95 {_ms(posts['p95'])} ms, refused: {refused}"
        )
    return found


def _note(reports: Sequence[Report]) -> str:
    virtual_s, real_s = (
        sum(report.simulated_s for report in reports),
        sum(report.real_s for report in reports),
    )
    return (
        f"simulated {virtual_s:.0f} s in {real_s:.1f} s ({virtual_s / max(real_s, 1e-9):.1f} times real time)"
    )
