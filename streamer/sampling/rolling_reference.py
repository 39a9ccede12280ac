"""Extends the drift reference by accepted days (`DRIFT_ROLLING_DAYS`): reads rows and writes files.

`streamer.drift.rolling` decides about days. Beside the reference lies the first one, `NAME.first`; beside the
history lies what the reference consists of, `.rolling.json`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from streamer.core.durable import write_durably
from streamer.drift.history import History
from streamer.drift.learned_reference import load, other_groups
from streamer.drift.monitor import DriftConfig
from streamer.drift.reference import (
    ANY,
    MAX_ROWS,
    MAX_TOTAL_ROWS,
    GroupReference,
    Reference,
    learn_table,
    thin_rows,
)
from streamer.drift.reference_document import document_of, parse
from streamer.drift.rolling import (
    DELAY_S,
    MAX_AGE_S,
    Period,
    held_days,
    judge_day,
    next_midnight,
    total_hours,
)
from streamer.drift.rolling_state import RollingGroup, RollingStatus, dump, fingerprint
from streamer.drift.rolling_state import parse as parse_state
from streamer.drift.rows import Row, Table

log = logging.getLogger("streamer.drift")

#: Rows of a day are there if the history still has this share of them.
MIN_ROWS_LEFT = 0.9


@dataclass(frozen=True, slots=True)
class Extended:
    """Holds a reference that was extended, and its file."""

    reference: Reference
    document: bytes


class RollingReference:
    """Extends the reference of all groups. Its methods read and write files: call them in a thread."""

    def __init__(self, path: Path, folder: Path, history: History, config: DriftConfig) -> None:
        """Extend the reference at ``path``; ``folder`` is that of the history."""
        self._path = path
        self._first_path = path.with_name(f"{path.name}.first")
        self._state_path = folder / ".rolling.json"
        self._history = history
        self._config = config
        #: None until read.
        self._groups: dict[str, RollingGroup] | None = None

    def describe(self) -> dict[str, RollingStatus]:
        """Return the status of each group."""
        most = self._config.rolling_days
        return {name: group.describe(most) for name, group in (self._groups or {}).items()}

    def sizes(self) -> dict[str, tuple[float, float]]:
        """Return for each group how many days its reference holds, and when the newest ended (unix s)."""
        groups = (self._groups or {}).items()
        return {
            name: (total_hours(group.days) / 24, max(day.end for day in group.days))
            for name, group in groups
            if group.days
        }

    def extend(
        self, reference: Reference, drift: Mapping[str, Sequence[Period]], now: float
    ) -> Extended | None:
        """Judge the days that are due; return the extended reference, or None if it does not change.

        ``drift`` are the times in which groups were in drift. Call :meth:`publish` with the result. Raises
        OSError and ReferenceBroken.
        """
        groups = self._groups = self._match(reference, now)
        due = {name: _due_days(group, now) for name, group in groups.items()}
        if not any(due.values()):
            self._save_state()
            return None
        first = load(self._first_path, window_s=self._config.window_s, alpha=self._config.alpha)
        learned: dict[str, tuple[GroupReference, Sequence[Row]]] = {}
        for name, group in groups.items():
            own, anchor = reference.groups[name], first.groups.get(name) if first is not None else None
            for day in due[name]:
                self._judge(name, group, day, own, anchor or own, drift.get(name, ()))
            if group.accepted:
                found = self._learn(name, group, own, len(groups), now)
                if found is not None:
                    learned[name] = found
        if not learned:
            self._save_state()
            return None
        document = document_of(
            learned,
            window_s=self._config.window_s,
            interval_s=self._config.interval_s,
            others=other_groups(self._path),
        )
        extended = parse(document, window_s=self._config.window_s, alpha=self._config.alpha)
        for name in learned:
            # Until the file is replaced, the old reference is in use; a crash may come in between.
            groups[name].fingerprints.append(fingerprint(extended.groups[name]))
        self._save_state()
        return Extended(extended, document)

    def publish(self, extended: Extended) -> None:
        """Replace the file of the reference, without a numbered copy of the one before. Raises OSError."""
        write_durably(self._path, extended.document, self._path.with_name(f".{self._path.name}.new"))
        for group in (self._groups or {}).values():
            group.fingerprints = group.fingerprints[-1:]
        self._save_state()

    def _match(self, reference: Reference, now: float) -> dict[str, RollingGroup]:
        """Return the state of each group; a reference that a person has replaced is a first one."""
        known = self._groups if self._groups is not None else self._read_state()
        groups: dict[str, RollingGroup] = {}
        new = []
        for name, own in reference.groups.items():
            if name == ANY:
                continue
            digest = fingerprint(own)
            if name in known and digest in known[name].fingerprints:
                groups[name] = known[name]
                groups[name].fingerprints = [digest]
            else:
                group = RollingGroup.begin(own, now)
                group.days = [replace(day, rows=len(self._rows(name, day))) for day in group.days]
                groups[name] = group
                new.append(name)
        if new:
            self._save_first(reference, new)
        return groups

    def _save_first(self, reference: Reference, new: Sequence[str]) -> None:
        """Keep the present reference of these groups as their first one."""
        present = other_groups(self._path)
        stored: dict[str, Any] = {
            name: group for name, group in other_groups(self._first_path).items() if name in reference.groups
        }
        stored |= {name: present[name] for name in new if name in present}
        document = document_of(
            {}, window_s=self._config.window_s, interval_s=self._config.interval_s, others=stored
        )
        write_durably(self._first_path, document, self._first_path.with_name(f".{self._first_path.name}.new"))

    def _judge(
        self,
        name: str,
        group: RollingGroup,
        day: Period,
        own: GroupReference,
        first: GroupReference,
        drift: Sequence[Period],
    ) -> None:
        """Accept a day, or remember why it is skipped."""
        group.next_day = day.end
        rows = self._rows(name, day)
        of_model = [row for row in rows if not own.model or row.model == own.model]
        share = len(of_model) / len(rows) if rows else 1.0
        table = Table.of(of_model)
        verdict = judge_day(day, table, share, own, first, drift, far=group.far)
        group.far, reason = verdict.far, verdict.reason
        if reason:
            group.skip(day, reason)
            log.warning("%s: %s is not added to the drift reference: %s", name, day.date, reason)
        else:
            group.accepted.append(replace(day, rows=len(of_model)))

    def _learn(
        self, name: str, group: RollingGroup, own: GroupReference, count: int, now: float
    ) -> tuple[GroupReference, Sequence[Row]] | None:
        """Learn from the days that a group shall hold; None while too few of their rows are there."""
        wanted = held_days([*group.days, *group.accepted], self._config.rolling_days, now)
        quota = max(1, min(MAX_ROWS, MAX_TOTAL_ROWS // count) // len(wanted))
        held: list[Period] = []
        tables, kept = [], []
        for day in wanted:
            rows = [row for row in self._rows(name, day) if not own.model or row.model == own.model]
            if rows and len(rows) >= MIN_ROWS_LEFT * day.rows:
                held.append(day)
                tables.append(Table.of(rows))
                kept += thin_rows(rows, quota)
        least = min(total_hours(group.days), 24.0 * self._config.rolling_days)
        if total_hours(held) < least - 1 or not set(held) - set(group.days):
            group.accepted = [day for day in group.accepted if day in held]
            group.waiting = (
                f"The history has the rows of {total_hours(held) / 24:.1f} days, and the reference is of "
                f"{least / 24:.1f} days (DRIFT_HISTORY_BYTES says how many rows are kept)."
            )
            return None
        learned = learn_table(
            own.model, Table.joined(tables), kept, self._config.window_s, self._config.alpha
        )
        group.days, group.accepted, group.waiting = held, [], ""
        log.info("the drift reference of %s is of %.1f days", name, total_hours(held) / 24)
        return learned, kept

    def _rows(self, name: str, day: Period) -> list[Row]:
        rows = takewhile(lambda row: row.at < day.end + 60, self._history.read(name, day.begin))
        return [row for row in rows if row.at < day.end]

    def _read_state(self) -> dict[str, RollingGroup]:
        try:
            return parse_state(self._state_path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log.warning("the drift reference in use is taken as a first one: %s: %s", self._state_path, error)
            return {}

    def _save_state(self) -> None:
        document = dump(self._groups or {})
        write_durably(self._state_path, document, self._state_path.with_name(".rolling.json.new"))


def _due_days(group: RollingGroup, now: float) -> list[Period]:
    """Return the days that have ended long enough ago and were not judged yet."""
    begin = group.next_day
    while begin < now - MAX_AGE_S:
        begin = next_midnight(begin)
    found = []
    while (end := next_midnight(begin)) <= now - DELAY_S:
        found.append(Period(begin, end))
        begin = end
    return found
