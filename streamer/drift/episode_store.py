"""Keeps the episodes of all groups in a file, so that a restarted process knows what recurs and goes on.

The file is JSON beside the history of rows. It belongs to one reference: with another one, episodes start
anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.core.durable import write_durably
from streamer.drift.day import DAY_S
from streamer.drift.episode import MAX_PAST, Episode, Onset, PastEpisode

SCHEMA = 1
MAX_BYTES = 8 << 20
#: Greater ratios are stored as this one.
MAX_RATIO = 1e9
#: An episode that was on is continued if the process was away for at most this long.
CONTINUED_WITHIN_S = DAY_S


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """Holds what is kept of one group: its episode, and how many it has had."""

    episode: Episode
    episodes: int
    samples: int


def dump(groups: Mapping[str, StoredGroup], references: Sequence[str], at: float) -> bytes:
    """Return the file of these groups at time ``at``; ``references`` are the digests of their reference."""
    document = {
        "schema": SCHEMA,
        "references": list(references),
        "at": at,
        "groups": {
            name: {
                "episodes": group.episodes,
                "samples": group.samples,
                "since": group.episode.since,
                "worst": _finite(group.episode.worst),
                "effect": _finite(group.episode.effect),
                "recurring": group.episode.recurring,
                "onset": _onset(group.episode.onset),
                "columns": _rounded(group.episode.columns),
                "past": [
                    {
                        "begin": past.begin,
                        "end": past.end,
                        "columns": _rounded(past.columns),
                        "drift": past.drift,
                        "onset": _onset(past.onset),
                    }
                    for past in group.episode.past
                ],
            }
            for name, group in groups.items()
        },
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def parse(text: bytes, reference: str, now: float) -> dict[str, StoredGroup]:
    """Return the groups of a file of this reference; none if it is of another one.

    Raises ValueError if the file is damaged.
    """
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA or reference not in document["references"]:
            return {}
        continued = 0 <= now - float(document["at"]) <= CONTINUED_WITHIN_S
        return {
            str(name): _parse_group(stored, continued=continued)
            for name, stored in document["groups"].items()
        }
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def load(path: Path, reference: str, now: float) -> dict[str, StoredGroup]:
    """Return the groups in the file at ``path``, none without a file.

    Raises ValueError, which names the file, if it is damaged or cannot be read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path}: larger than {MAX_BYTES} bytes")  # noqa: TRY301 - names the file, like the others
        return parse(path.read_bytes(), reference, now)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def save(path: Path, document: bytes) -> None:
    """Replace the file. Raises OSError."""
    write_durably(path, document, path.with_name(f"{path.name}.new"))


def _parse_group(stored: Mapping[str, Any], *, continued: bool) -> StoredGroup:
    episode = Episode()
    for past in stored["past"][-MAX_PAST:]:
        begin, end = float(past["begin"]), float(past["end"])
        columns, drift = _columns(past["columns"]), bool(past["drift"])
        episode.past.append(PastEpisode(begin, end, columns, drift, _parse_onset(past["onset"])))
    if continued and stored["since"] is not None:
        episode.since = float(stored["since"])
        episode.worst, episode.effect = float(stored["worst"]), float(stored["effect"])
        episode.recurring, episode.onset = bool(stored["recurring"]), _parse_onset(stored["onset"])
        episode.columns = _columns(stored["columns"])
    return StoredGroup(episode, int(stored["episodes"]), int(stored["samples"]) if continued else 0)


def _onset(onset: Onset | None) -> list[Any] | None:
    return [onset.kind, onset.at] if onset is not None else None


def _parse_onset(stored: Any) -> Onset | None:
    if stored is None:
        return None
    kind, at = stored
    return Onset("sudden" if kind == "sudden" else "gradual", float(at))


def _columns(stored: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(ratio) for name, ratio in stored.items()}


def _rounded(columns: Mapping[str, float]) -> dict[str, float]:
    return {name: _finite(ratio) for name, ratio in columns.items()}


def _finite(ratio: float) -> float:
    """Return the ratio with four digits, as a number that JSON has."""
    return float(f"{min(ratio, MAX_RATIO):.4g}")
