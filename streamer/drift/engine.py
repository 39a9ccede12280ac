"""Runs Evidently in a process of its own (`evidently_process`), which is killed when it takes too long."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamer.config.child_environment import without_secrets
from streamer.core.extras import image_command
from streamer.drift.errors import EngineFailed
from streamer.drift.monitor import Check
from streamer.drift.reference import Reference, ReferenceScorer
from streamer.drift.rows import CATEGORICAL, MODEL_DEPENDENT, NUMERIC, OTHER, Row

NOT_INSTALLED = f"Evidently is not installed; {image_command('drift')}"
#: After this many failures in a row Evidently is not tried again for a while.
MAX_FAILURES, FAILURE_PAUSE_S = 3, 3600.0


@dataclass(frozen=True, slots=True)
class EvidentlyResult:
    """Holds Evidently's scores by group and column, and its HTML report when one was requested."""

    scores: dict[str, dict[str, float]]
    html: str


def installed() -> bool:
    """Return whether Evidently is installed."""
    return importlib.util.find_spec("evidently") is not None


class EvidentlyEngine:
    """Runs Evidently for the service, one run at a time; pauses for an hour after three failures in a row."""

    def __init__(self, timeout_s: float, *, enabled: bool, count_failure: Callable[[str], None]) -> None:
        """Prepare the engine; it calls ``count_failure`` for each failure, with a reason of EngineFailed."""
        self._timeout_s = timeout_s
        #: Whether the settings allow Evidently, which may still be absent.
        self.enabled = enabled
        self._count_failure = count_failure
        self._lock = asyncio.Lock()
        self._failures = 0
        self._retry_at = 0.0
        #: Why the last run failed; empty after a successful one.
        self.error = ""

    @property
    def available(self) -> bool:
        """Whether Evidently may be run now: it is enabled, installed and not paused after failures."""
        if not self.enabled:
            return False
        if not installed():
            if not self.error:
                self._count_failure("missing")
            self.error = NOT_INSTALLED
            return False
        return time.monotonic() >= self._retry_at

    async def score(
        self, checks: Sequence[Check], reference: Reference | None, *, html: bool = False
    ) -> EvidentlyResult:
        """Let Evidently score checks made against ``reference``. Raises EngineFailed, after counting it."""
        groups = {check.group: reference.of(check.group) for check in checks} if reference is not None else {}
        models = {name: group.model for name, group in groups.items() if group is not None}
        try:
            async with self._lock:
                result = await run_evidently(checks, models, self._timeout_s, html=html)
        except EngineFailed as error:
            self._count_failure(error.reason)
            self.error = str(error)
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                self._failures = 0
                self._retry_at = time.monotonic() + FAILURE_PAUSE_S
            raise
        self.error, self._failures = "", 0
        return result


async def run_evidently(
    checks: Sequence[Check], models: dict[str, str], timeout_s: float, *, html: bool
) -> EvidentlyResult:
    """Let Evidently score checks that the builtin engine has scored.

    ``models`` names the reference's model of each group. The process of Evidently has ended when this returns
    or raises. Raises EngineFailed, after ``timeout_s`` at the latest. Only one call may run at a time.
    """
    request = await asyncio.to_thread(_encode_request, checks, models, html)
    try:
        process = await _start(len(checks))
    except OSError as error:
        raise EngineFailed("crashed", f"Evidently cannot be started: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate(request)
    except TimeoutError:
        raise EngineFailed("timeout", f"Evidently was stopped after {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise EngineFailed("crashed", f"Evidently ended with {process.returncode}: {last or 'no word'}")
    return await asyncio.to_thread(_decode_result, output)


async def _start(groups: int) -> asyncio.subprocess.Process:
    environment = without_secrets(os.environ)
    # With this variable, Evidently would write its own metrics into the service's metrics files.
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streamer.drift.evidently_process",
        str(groups),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def _decode_result(output: bytes) -> EvidentlyResult:
    try:
        result = json.loads(output)
        scores = {
            str(name): {str(column): float(value) for column, value in columns.items()}
            for name, columns in result["scores"].items()
        }
        return EvidentlyResult(scores, str(result["html"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineFailed("malformed", f"Evidently's answer cannot be read: {error!r:.100}") from error


def _encode_request(checks: Sequence[Check], models: dict[str, str], html: bool) -> bytes:
    groups = {check.group: _describe(check, models.get(check.group, "")) for check in checks}
    return json.dumps({"html": html, "groups": groups}, allow_nan=False).encode()


def _describe(check: Check, model: str) -> dict[str, Any]:
    """Return window and reference by column; leave out columns without a score, on which Evidently fails."""
    if check.scorer is None:
        raise ValueError(f"the check of {check.group} was not scored")
    scored = {column.name: column for column in check.columns if column.score is not None}
    current: dict[str, list[Any]] = {}
    reference: dict[str, list[Any]] = {}
    for place, name in enumerate(NUMERIC):
        if name in scored:
            values = [float(row.numbers[place]) for row in _rows(check, name, model)]
            current[name] = [value for value in values if np.isfinite(value)]
            reference[name] = check.scorer.numbers[name].astype(np.float64).tolist()
    for name in CATEGORICAL:
        if name in scored:
            known = check.scorer.categories[name].names
            found = [str(getattr(row, name)) for row in _rows(check, name, model)]
            found = [category if category in known else OTHER for category in found]
            current[name] = _resample(found, len(check.window.rows))
            reference[name] = _repeat(check.scorer, name)
    return {
        "numeric": [name for name in NUMERIC if name in current],
        "categorical": [name for name in CATEGORICAL if name in current],
        "thresholds": {name: scored[name].threshold for name in current},
        "current": current,
        "reference": reference,
    }


def _rows(check: Check, name: str, model: str) -> list[Row]:
    rows = check.window.rows
    return [row for row in rows if row.model == model] if model and name in MODEL_DEPENDENT else rows


def _repeat(scorer: ReferenceScorer, name: str) -> list[str]:
    """Return each category as many times as the reference contains it."""
    known = scorer.categories[name]
    counted = zip((*known.names, OTHER), known.counts.tolist(), strict=True)
    return [category for category, count in counted for _ in range(int(count))]


def _resample(values: list[str], length: int) -> list[str]:
    """Return ``length`` values in the same proportions, because Evidently counts a gap as a category."""
    return [values[place * len(values) // length] for place in range(length)]
