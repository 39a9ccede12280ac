"""Handles the workers' requests about drift: the HTML report, and updates of the reference."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from streamer.core.free_memory import return_free_memory
from streamer.drift.engine import NOT_INSTALLED, installed
from streamer.drift.errors import DriftError, EngineFailed, ReferenceBroken, UpdateRefused
from streamer.drift.learned_reference import (
    LearnedReference,
    UpdateRequest,
    learn_groups,
    other_groups,
    publish,
    read_request,
    save,
)
from streamer.drift.monitor import Check
from streamer.drift.reference import ANY, Reference
from streamer.drift.reference_document import parse
from streamer.drift.rows import Row
from streamer.drift.status import describe_group, thresholds_now
from streamer.drift.status_document import ReferenceGroup
from streamer.sampling.drift_service import DriftService

log = logging.getLogger("streamer.drift")


class LearnedGroup(ReferenceGroup):
    """One group that was learned."""

    thresholds: Annotated[
        dict[str, float],
        Field(
            description="By column: the score from which the column has moved, at the time of day at which "
            "the reference ends. Columns that are too variable are left out."
        ),
    ]
    ratio_before: Annotated[
        float | None,
        Field(
            description="How far the present window is from the old reference, as a multiple of the "
            "threshold; null if it cannot be compared."
        ),
    ]
    ratio_after: Annotated[float | None, Field(description="The same for the new reference.")]


class ReferenceUpdate(TypedDict):
    """What was learned."""

    dry_run: Annotated[bool, Field(description="True if the reference in use has not been replaced.")]
    sha256: Annotated[str | None, Field(description="SHA-256 of the new file; null after a dry run.")]
    groups: Annotated[dict[str, LearnedGroup], Field(description="The learned groups by name.")]
    skipped: Annotated[
        dict[str, str], Field(description="The groups that were not learned, each with the reason.")
    ]


class DriftApi:
    """Answers the workers' requests about drift. Call ``handle()`` for each, in a task of its own."""

    def __init__(self, service: DriftService) -> None:
        self._service = service
        #: The last report: group, end of window and reference that it shows, and its HTML.
        self._report: tuple[tuple[str, float, str], str] = (("", 0.0, ""), "")

    async def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return ``{"result": …}``, or ``{"error": …}`` with status, code and detail for the client."""
        try:
            if request.get("method") == "report":
                return {"result": await self._make_report(str(request.get("group", "")))}
            return {"result": await self._update(request)}
        except UpdateRefused as error:
            return {"error": {"status": error.status, "code": error.code, "detail": str(error)}}
        except DriftError as error:
            return {"error": {"status": 503, "code": "unavailable", "detail": f"{error}."}}
        except Exception:
            log.exception("a request about drift failed")
            return {"error": {"status": 500, "code": "internal", "detail": "The server failed."}}

    # -- the report ----------------------------------------------------------------------------------

    async def _make_report(self, name: str) -> str:
        check = self._choose(name)
        reference = self._service.monitor.reference
        key = check.group, check.window.end, reference.sha256 if reference is not None else ""
        if self._report[0] != key:
            if not installed():
                raise EngineFailed("missing", f"The report is made by Evidently; {NOT_INSTALLED}")
            self._report = key, (await self._service.engine.score([check], reference, html=True)).html
        return self._report[1]

    def _choose(self, name: str) -> Check:
        """Return the check of a group for the report; without a name, the one with the highest ratio.

        Raises UpdateRefused: 404 for an unknown group, 409 if there is nothing to report.
        """
        groups = self._service.monitor.groups
        if name and name not in groups:
            raise UpdateRefused(
                404, "not_found", f"No group {name:.64}; there are: {', '.join(groups) or 'none'}."
            )
        checks = [self._last_check(found) for found in groups if name in ("", found)]
        scored = [check for check in checks if check is not None]
        if not scored:
            missing = self._service.monitor.reference is None
            why = "no reference" if missing else "no window with enough rows yet"
            raise UpdateRefused(409, "nothing_to_report", f"There is {why}; GET /drift/status says more.")
        return max(scored, key=lambda check: check.ratio)

    def _last_check(self, name: str) -> Check | None:
        monitor = self._service.monitor
        check = monitor.groups[name].check
        if check is not None and check.scorer is not None:
            return check
        return self._check_now(name, monitor.reference)

    def _check_now(self, name: str, reference: Reference | None) -> Check | None:
        """Score a group's present window against a reference; None without enough rows or a reference."""
        of_group = reference.of(name) if reference is not None else None
        group = self._service.monitor.groups.get(name)
        if of_group is None or group is None:
            return None
        window = group.recent.window(group.recent.newest)
        return self._service.monitor.score(name, window, of_group) if window.enough else None

    # -- updates of the reference --------------------------------------------------------------------

    async def _update(self, request: dict[str, Any]) -> ReferenceUpdate:
        if self._service.updating:
            raise UpdateRefused(423, "locked", "Another update of the reference is running; try again later.")
        self._service.updating = True
        try:
            update = await asyncio.to_thread(
                read_request, request["body"], dry_run=request["dry_run"], force=request["force"]
            )
            self._refuse_in_drift(update)
            if update.document:
                return await self._install_document(update)
            return await self._learn_and_install(update)
        except OSError as error:
            raise UpdateRefused(
                503, "cannot_write", f"REFERENCE_DATA_PATH cannot be written: {error.strerror or error}."
            ) from error
        finally:
            self._service.updating = False
            return_free_memory()

    def _refuse_in_drift(self, update: UpdateRequest) -> None:
        drifting = self._service.monitor.drifting
        if drifting and not update.force and not update.dry_run:
            raise UpdateRefused(
                409,
                "in_drift",
                f"In drift: {', '.join(drifting[:5])}. Learning now would make the fault the normal; "
                "wait until it is over, or insist with `force`.",
            )

    async def _learn_and_install(self, update: UpdateRequest) -> ReferenceUpdate:
        learned = await asyncio.to_thread(self._learn, update)
        described = self._describe(update, learned, self._service.monitor.reference)
        if not update.dry_run:
            config, path = self._service.config, self._service.path
            # When one group is learned from the history, all others stay unchanged.
            one = update.rows is None and update.group != ANY
            others = await asyncio.to_thread(other_groups, path) if one else {}
            reference = await asyncio.to_thread(
                publish,
                path,
                learned,
                window_s=config.window_s,
                alpha=config.alpha,
                interval_s=config.interval_s,
                others=others,
            )
            self._service.set_reference(reference)
            described["sha256"] = reference.sha256
            log.info("learned a new drift reference of the groups %s", ", ".join(learned.groups))
        return described

    async def _install_document(self, update: UpdateRequest) -> ReferenceUpdate:
        config = self._service.config
        try:
            reference = await asyncio.to_thread(
                parse, update.document, window_s=config.window_s, alpha=config.alpha
            )
        except ReferenceBroken as error:
            raise UpdateRefused(400, "invalid_reference", f"The document: {error}.") from error
        learned = LearnedReference({name: (group, ()) for name, group in reference.groups.items()})
        described = self._describe(update, learned, self._service.monitor.reference)
        if not update.dry_run:
            await asyncio.to_thread(save, self._service.path, update.document)
            self._service.set_reference(reference)
            described["sha256"] = reference.sha256
        return described

    def _learn(self, update: UpdateRequest) -> LearnedReference:
        config, history = self._service.config, self._service.history

        def from_request(rows: Sequence[Row]) -> Callable[[], Sequence[Row]]:
            return lambda: rows

        def from_history(name: str) -> Callable[[], Sequence[Row]]:
            return lambda: list(history.read(name, time.time() - update.hours * 3600))

        if update.rows is not None:
            sources = {name: from_request(rows) for name, rows in update.rows.items()}
        else:
            names = [name for name in history.groups() if update.group in (ANY, name)]
            sources = {name: from_history(name) for name in names}
        return learn_groups(
            sources.items(),
            len(sources),
            window_s=config.window_s,
            alpha=config.alpha,
            force=update.force,
        )

    def _describe(
        self, update: UpdateRequest, learned: LearnedReference, old: Reference | None
    ) -> ReferenceUpdate:
        groups: dict[str, LearnedGroup] = {}
        for name, (reference, _) in learned.groups.items():
            groups[name] = {
                **describe_group(reference),
                "thresholds": thresholds_now(reference),
                "ratio_before": self._ratio(name, old),
                "ratio_after": self._ratio(name, Reference({name: reference}, "", "")),
            }
        return {"dry_run": update.dry_run, "sha256": None, "groups": groups, "skipped": learned.skipped}

    def _ratio(self, name: str, reference: Reference | None) -> float | None:
        """Return the greatest ratio of a group's present window against a reference; None without a score."""
        check = self._check_now(name, reference)
        return float(f"{check.ratio:.4g}") if check is not None else None
