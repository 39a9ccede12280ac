"""Lets Evidently score windows of one stream, several in one run, and render its report."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from streamer.drift.engine import NOT_INSTALLED, installed, run_evidently
from streamer.drift.errors import EngineFailed
from streamer.drift.monitor import Check

#: Windows that one process scores: each takes one to two seconds of processor time, its start up to ten.
WINDOWS_PER_RUN = 12
#: After this many failures in a row Evidently is not tried again.
MAX_FAILURES = 3


class Evidently:
    """Runs Evidently, and says in ``problem`` why it did not decide; empty if it did."""

    def __init__(self, timeout_s: float, *, enabled: bool) -> None:
        self._timeout_s = timeout_s
        self._failures = 0
        #: Whether it may still be run.
        self.on = enabled and installed()
        self.problem = "" if self.on else (NOT_INSTALLED if enabled else "Evidently was not asked for")

    def score(self, checks: Sequence[Check], model: str) -> Mapping[float, Mapping[str, float]]:
        """Return scores by end of the window and by column; without the windows that it failed to score."""
        scores: dict[float, Mapping[str, float]] = {}
        for start in range(0, len(checks), WINDOWS_PER_RUN):
            batch = checks[start : start + WINDOWS_PER_RUN]
            named = {str(number): check for number, check in enumerate(batch)}
            found = self._run(named, model, html=False)
            if found is not None:
                scores |= {named[name].window.end: columns for name, columns in found[0].items()}
        return scores

    def report(self, check: Check, model: str) -> str:
        """Return Evidently's HTML report about a window; empty if it failed."""
        found = self._run({check.group: check}, model, html=True)
        return found[1] if found is not None else ""

    def _run(
        self, checks: Mapping[str, Check], model: str, *, html: bool
    ) -> tuple[Mapping[str, Mapping[str, float]], str] | None:
        if not self.on:
            return None
        named = [replace(check, group=name) for name, check in checks.items()]
        models = dict.fromkeys(checks, model)
        try:
            result = asyncio.run(run_evidently(named, models, self._timeout_s, html=html))
        except EngineFailed as error:
            self.problem = str(error)
            self._failures += 1
            self.on = self._failures < MAX_FAILURES
            return None
        self._failures = 0
        return result.scores, result.html
