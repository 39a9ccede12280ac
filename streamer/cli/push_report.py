"""Writes what `push` reports: its progress, its summary, and a JSON line for each sent frame."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from streamer.client.capture import Captured
from streamer.client.detections import Detections
from streamer.client.errors import SaveFailed
from streamer.client.frame_stream import Phase, State
from streamer.client.results import Drop, FrameError, Ledger, Outcome, Result

#: Seconds over which rates are averaged.
SPAN_S = 3.0
_ROUND_TRIPS = 4096
_RECENT = 100


class Rate:
    """Measures events per second, averaged over `SPAN_S`."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self._begun: float | None = None

    def mark(self, now: float) -> None:
        """Count one event."""
        if self._begun is None:
            self._begun = now
        self._times.append(now)
        self._forget(now)

    def per_s(self, now: float) -> float:
        """Return the rate."""
        self._forget(now)
        if self._begun is None:
            return 0.0
        return len(self._times) / min(SPAN_S, max(0.5, now - self._begun))

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - SPAN_S:
            self._times.popleft()


@dataclass(slots=True)
class Tally:
    """Holds the counts and times of one push."""

    captured: int = 0
    total: int | None = None
    time_s: float = 0.0
    boxes: int = 0
    captures: Rate = field(default_factory=Rate)
    results: Rate = field(default_factory=Rate)
    round_trips_s: deque[float] = field(default_factory=lambda: deque(maxlen=_ROUND_TRIPS))

    def result(self, boxes: int, round_trip_s: float, now: float) -> None:
        """Count a result."""
        self.boxes = boxes
        self.results.mark(now)
        self.round_trips_s.append(round_trip_s)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` (0..1) of all values lie; 0 if there are no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def progress_line(tally: Tally, ledger: Ledger, state: State, now: float) -> str:
    """Return the status in one line, with the most important part first, because terminals cut its end."""
    parts = [_connection(state)]
    share = f" {min(100, 100 * tally.captured // tally.total)}%" if tally.total else ""
    parts.append(f"{clock(tally.time_s)}{share}")
    parts.append(f"in {tally.captures.per_s(now):.1f} fps, out {tally.results.per_s(now):.1f} fps")
    recent = list(tally.round_trips_s)[-_RECENT:]
    if recent:
        parts.append(f"round trip {percentile(recent, 0.5) * 1e3:.0f} ms")
    parts.append(f"boxes {tally.boxes}")
    parts.append(f"skipped {_reasons(ledger.skipped)}")
    parts.append(f"dropped {_reasons(ledger.dropped)}")
    if ledger.errors:
        parts.append(f"errors {_reasons(ledger.errors)}")
    return " | ".join(parts)


def _connection(state: State) -> str:
    if state.phase is Phase.WAITING:
        retry = f", next try in {state.retry_s:.1f} s" if state.retry_s is not None else ""
        return f"{state.detail}{retry}"
    return state.phase.value


def _reasons(counts: Mapping[str, int]) -> str:
    nonzero = {reason: count for reason, count in counts.items() if count}
    if not nonzero:
        return "0"
    if len(nonzero) == 1:
        ((reason, count),) = nonzero.items()
        return f"{count} {reason}"
    ordered = sorted(nonzero.items(), key=lambda item: -item[1])
    return f"{sum(nonzero.values())} ({', '.join(f'{count} {reason}' for reason, count in ordered)})"


def clock(seconds: float) -> str:
    """Return a duration as 0:07, 2:19 or 1:00:00."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def summary(tally: Tally, ledger: Ledger, saved: str = "") -> str:
    """Return the final table, which also says whether the counts add up."""
    rows = [
        ("captured", f"{tally.captured} frames, {tally.time_s:.1f} s"),
        ("skipped", f"{_reasons(ledger.skipped)} (never sent)"),
        ("sent", f"{ledger.sent}" + (f", {ledger.resent} of them again" if ledger.resent else "")),
        ("results", f"{ledger.results}"),
        ("dropped", _reasons(ledger.dropped)),
        ("errors", _reasons(ledger.errors)),
        ("in flight", f"{ledger.in_flight}"),
        ("ledger", _verdict(tally.captured, ledger)),
    ]
    if tally.round_trips_s:
        p50, p95 = (percentile(tally.round_trips_s, share) * 1e3 for share in (0.5, 0.95))
        rows.append(("round trip", f"half within {p50:.0f} ms, 95 % within {p95:.0f} ms"))
    if saved:
        rows.append(("saved", saved))
    return "\n".join(f"{name:<11}{value}" for name, value in rows)


def _verdict(captured: int, ledger: Ledger) -> str:
    off = unexplained(captured, ledger)
    return "balances" if off == 0 else f"OFF BY {off}: please report this"


def unexplained(captured: int, ledger: Ledger) -> int:
    """Return the number of captured frames that the counts do not explain. Not zero means a bug."""
    return ledger.balance + abs(captured - ledger.offered)


def describe_detections(detections: Detections) -> list[dict[str, Any]]:
    """Return the boxes as in an answer of predict, with ``track_id`` for tracked boxes."""
    rows = []
    for detection in detections:
        row: dict[str, Any] = {
            "box": [round(value, 2) for value in detection.box],
            "score": round(detection.score, 4),
            "class_id": detection.class_id,
            "label": detection.label,
        }
        if detection.track_id is not None:
            row["track_id"] = detection.track_id
        if detection.text is not None:
            row |= {"text": detection.text, "format": detection.format}
        rows.append(row)
    return rows


def describe_outcome(frame: Captured, outcome: Outcome) -> dict[str, Any]:
    """Return the JSON object for the outcome of a frame."""
    line: dict[str, Any] = {"type": "", "frame": frame.number, "time_s": round(frame.time_s, 6)}
    if frame.name:
        line["name"] = frame.name
    line["seq"] = outcome.seq
    if isinstance(outcome, Result):
        return line | {
            "type": "result",
            "width": outcome.width,
            "height": outcome.height,
            "detections": describe_detections(outcome.detections),
            "round_trip_ms": round(outcome.round_trip_s * 1e3, 2),
            "server": dict(outcome.timings_ms),
            **({"damaged": True} if outcome.damaged else {}),
            **({"reduced": outcome.reduced} if outcome.reduced > 1 else {}),
        }
    if isinstance(outcome, Drop):
        return line | {"type": "drop", "reason": outcome.reason, "message": outcome.message}
    if isinstance(outcome, FrameError):
        return line | {"type": "error", "code": outcome.code, "message": outcome.message}
    raise TypeError(f"unknown outcome {type(outcome).__name__}")


class Journal:
    """Writes a file of JSON lines; ``-`` is standard output. Raises SaveFailed when that fails."""

    def __init__(self, path: str) -> None:
        self._shown = path
        self._file: IO[str] = sys.stdout
        if path != "-":
            try:
                self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 - closed in close()
            except OSError as error:
                raise SaveFailed(f"--json {path}: {error.strerror or error}") from error

    def outcome(self, frame: Captured, outcome: Outcome) -> None:
        """Write the line of an outcome, unless it is the drop of a frame that was never sent."""
        if outcome.seq or isinstance(outcome, FrameError):
            self._write(describe_outcome(frame, outcome))

    def summary(self, captured: int, ledger: Ledger) -> None:
        """Write the summary, which is the last line."""
        self._write({"type": "summary", "captured": captured, **ledger.to_json()})

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            raise SaveFailed(f"--json {self._shown}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not sys.stdout:
            self._file.close()
