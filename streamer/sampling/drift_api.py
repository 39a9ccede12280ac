"""Answers what workers ask about drift: for the report, and for another reference."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from streamer.drift.calibration import Calibration
from streamer.drift.columns import Row
from streamer.drift.engine import installed
from streamer.drift.errors import DriftError, EngineFailed, ReferenceBroken, UpdateRefused
from streamer.drift.learned_reference import (
    Lesson,
    Request,
    learn_groups,
    other_groups,
    publish,
    read_request,
)
from streamer.drift.monitor import Check
from streamer.drift.reference import ANY, Reference
from streamer.drift.reference_document import parse
from streamer.drift.reference_file import save
from streamer.sampling.drift_service import Watch, give_memory_back

log = logging.getLogger("streamer.drift")


class DriftDesk:
    """``answer()`` questions; each in a task of its own."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._updating = False
        #: The last report: of which window by which reference, and its page.
        self._report: tuple[tuple[str, float, str], str] = (("", 0.0, ""), "")

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return ``{"result": …}``, or ``{"error": …}`` with status, code and detail for the client."""
        try:
            if question.get("question") == "report":
                return {"result": await self._make_report(str(question.get("group", "")))}
            return {"result": await self._update(question)}
        except UpdateRefused as error:
            return {"error": {"status": error.status, "code": error.code, "detail": str(error)}}
        except DriftError as error:
            return {"error": {"status": 503, "code": "unavailable", "detail": f"{error}."}}
        except Exception:
            log.exception("a question about drift failed")
            return {"error": {"status": 500, "code": "internal", "detail": "The server failed."}}

    # -- the report ----------------------------------------------------------------------------------

    async def _make_report(self, name: str) -> str:
        check = self._choose(name)
        reference = self._watch.monitor.reference
        key = check.group, check.window.end, reference.sha256 if reference is not None else ""
        if self._report[0] != key:
            if not installed():
                raise EngineFailed("missing", "The report is made by Evidently, which is not installed")
            self._report = key, (await self._watch.ask([check], html=True)).html
        return self._report[1]

    def _choose(self, name: str) -> Check:
        """Return the last check of a group, or its present window; of the worst group without a name."""
        groups = self._watch.monitor.groups
        if name and name not in groups:
            raise UpdateRefused(
                404, "not_found", f"No group {name:.64}; there are: {', '.join(groups) or 'none'}."
            )
        checks = [self._last_check(found) for found in groups if name in ("", found)]
        scored = [check for check in checks if check is not None]
        if not scored:
            why = (
                "no reference" if self._watch.monitor.reference is None else "no window with enough rows yet"
            )
            raise UpdateRefused(409, "nothing_to_report", f"There is {why}; GET /drift/status says more.")
        return max(scored, key=lambda check: check.ratio)

    def _last_check(self, name: str) -> Check | None:
        monitor = self._watch.monitor
        check = monitor.groups[name].check
        if check is not None and check.yardstick is not None:
            return check
        return self._measure(name, monitor.reference)

    def _measure(self, name: str, reference: Reference | None) -> Check | None:
        """Score a group's present window by a reference; None where that cannot be."""
        known = reference.of(name) if reference is not None else None
        group = self._watch.monitor.groups.get(name)
        if known is None or group is None:
            return None
        window = group.recent.window(group.recent.newest)
        return self._watch.monitor.measure(name, window, known) if window.enough else None

    # -- another reference ---------------------------------------------------------------------------

    async def _update(self, question: dict[str, Any]) -> dict[str, Any]:
        if self._updating:
            raise UpdateRefused(423, "locked", "Another update of the reference is running; try again later.")
        self._updating = True
        try:
            request = await asyncio.to_thread(
                read_request, question["body"], dry_run=question["dry_run"], force=question["force"]
            )
            self._refuse_in_drift(request)
            if request.document:
                return await self._take_document(request)
            return await self._learn_anew(request)
        except OSError as error:
            raise UpdateRefused(
                503, "cannot_write", f"REFERENCE_DATA_PATH cannot be written: {error.strerror or error}."
            ) from error
        finally:
            self._updating = False
            give_memory_back()

    def _refuse_in_drift(self, request: Request) -> None:
        drifting = self._watch.monitor.drifting
        if drifting and not request.force and not request.dry_run:
            raise UpdateRefused(
                409,
                "in_drift",
                f"In drift: {', '.join(drifting[:5])}. Learning now would make the fault the normal; "
                "wait until it is over, or insist with `force`.",
            )

    async def _learn_anew(self, request: Request) -> dict[str, Any]:
        lesson = await asyncio.to_thread(self._learn, request)
        described = self._describe(request, lesson, self._watch.monitor.reference)
        if not request.dry_run:
            # One group of many is learnt: the others stay as they are.
            path, one = self._watch.path, request.rows is None and request.group != ANY
            others = await asyncio.to_thread(other_groups, path) if one else {}
            reference = await asyncio.to_thread(publish, path, lesson, self._watch.plan, others=others)
            self._watch.refer_to(reference)
            described["sha256"] = reference.sha256
            log.info("a new reference of drift: %s", ", ".join(lesson.groups))
        return described

    async def _take_document(self, request: Request) -> dict[str, Any]:
        plan = self._watch.plan
        try:
            reference = await asyncio.to_thread(
                parse, request.document, window_s=plan.window_s, alpha=plan.alpha
            )
        except ReferenceBroken as error:
            raise UpdateRefused(400, "invalid_reference", f"The document: {error}.") from error
        lesson = Lesson({name: (group, ()) for name, group in reference.groups.items()})
        described = self._describe(request, lesson, self._watch.monitor.reference)
        if not request.dry_run:
            await asyncio.to_thread(save, self._watch.path, request.document)
            self._watch.refer_to(reference)
            described["sha256"] = reference.sha256
        return described

    def _learn(self, request: Request) -> Lesson:
        plan, history = self._watch.plan, self._watch.history

        def sent(rows: Sequence[Row]) -> Callable[[], Sequence[Row]]:
            return lambda: rows

        def stored(name: str) -> Callable[[], Sequence[Row]]:
            return lambda: list(history.read(name, time.time() - request.hours * 3600))

        if request.rows is not None:
            found = {name: sent(rows) for name, rows in request.rows.items()}
        else:
            names = [name for name in history.groups() if request.group in (ANY, name)]
            found = {name: stored(name) for name in names}
        return learn_groups(found.items(), len(found), plan, force=request.force)

    def _describe(self, request: Request, lesson: Lesson, old: Reference | None) -> dict[str, Any]:
        groups: dict[str, Any] = {}
        for name, (reference, _) in lesson.groups.items():
            whole: Calibration = reference.whole.calibration
            groups[name] = {
                "rows": reference.rows,
                "span_h": round(reference.span_h, 2),
                "model": reference.model,
                "calibrated": whole.calibrated,
                "blocks": whole.blocks,
                "buckets": sorted(reference.seasons),
                "thresholds": {column: float(f"{value:.4g}") for column, value in whole.thresholds.items()},
                "ratio_before": self._ratio(name, old),
                "ratio_after": self._ratio(name, Reference({name: reference}, "", "")),
            }
        return {"dry_run": request.dry_run, "sha256": None, "groups": groups, "skipped": lesson.skipped}

    def _ratio(self, name: str, reference: Reference | None) -> float | None:
        """Return how far a group's present window lies from a reference; None where it cannot be said."""
        check = self._measure(name, reference)
        return float(f"{check.ratio:.4g}") if check is not None else None
