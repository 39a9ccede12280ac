"""Writes outcomes of `push` as JSON lines: one per sent frame, drops and errors included; then a summary."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import IO, Any

from streamer.client.capture import Captured
from streamer.client.errors import SaveFailed
from streamer.client.results import Detections, Drop, FrameError, Ledger, Outcome, Result


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
        }
    if isinstance(outcome, Drop):
        return line | {"type": "drop", "reason": outcome.reason, "message": outcome.message}
    if isinstance(outcome, FrameError):
        return line | {"type": "error", "code": outcome.code, "message": outcome.message}
    raise TypeError(f"unknown outcome {type(outcome).__name__}")


class Journal:
    """A file of JSON lines; ``-`` is standard output. Raises SaveFailed when it cannot be written."""

    def __init__(self, path: str) -> None:
        self._shown = path
        self._file: IO[str] = sys.stdout
        if path != "-":
            try:
                self._file = Path(path).open("w", encoding="utf-8")  # noqa: SIM115 - closed in close()
            except OSError as error:
                raise SaveFailed(f"--json {path}: {error.strerror or error}") from error

    def outcome(self, frame: Captured, outcome: Outcome) -> None:
        """Write the line of an outcome, unless the frame was never sent."""
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
