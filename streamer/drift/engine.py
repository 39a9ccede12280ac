"""Asks Evidently, in a process of its own (`evidently_process`) that is killed when it takes too long."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamer.config.child_environment import without_secrets
from streamer.drift.columns import CATEGORICAL, NUMERIC, OF_MODEL
from streamer.drift.errors import EngineFailed
from streamer.drift.monitor import Check
from streamer.drift.reference_scorer import Yardstick
from streamer.drift.table import OTHER


@dataclass(frozen=True, slots=True)
class Answer:
    """What Evidently found: scores by group and column, and the report where one was asked for."""

    scores: dict[str, dict[str, float]]
    html: str


def installed() -> bool:
    """Whether Evidently can be started at all."""
    return importlib.util.find_spec("evidently") is not None


async def ask_evidently(
    checks: Sequence[Check], models: dict[str, str], timeout_s: float, *, html: bool
) -> Answer:
    """Let Evidently score the checks, which were measured; ``models`` by group as references name them.

    Raises EngineFailed, within ``timeout_s``. One at a time; the process ends in any case.
    """
    text = await asyncio.to_thread(_request, checks, models, html)
    try:
        process = await _start(len(checks))
    except OSError as error:
        raise EngineFailed("crashed", f"Evidently cannot be started: {error.strerror or error}") from error
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate(text)
    except TimeoutError:
        raise EngineFailed("timeout", f"Evidently was stopped after {timeout_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = errors.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise EngineFailed("crashed", f"Evidently ended with {process.returncode}: {last or 'no word'}")
    return await asyncio.to_thread(_answer, output)


async def _start(groups: int) -> asyncio.subprocess.Process:
    kept = without_secrets(os.environ)
    # Its own metrics files would otherwise stand among those of the service.
    kept.pop("PROMETHEUS_MULTIPROC_DIR", None)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "streamer.drift.evidently_process",
        str(groups),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=kept,
        start_new_session=True,
    )


def _answer(output: bytes) -> Answer:
    try:
        answer = json.loads(output)
        scores = {
            str(name): {str(column): float(value) for column, value in columns.items()}
            for name, columns in answer["scores"].items()
        }
        return Answer(scores, str(answer["html"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineFailed("malformed", f"Evidently's answer cannot be read: {error!r:.100}") from error


def _request(checks: Sequence[Check], models: dict[str, str], html: bool) -> bytes:
    groups = {check.group: _describe(check, models.get(check.group, "")) for check in checks}
    return json.dumps({"html": html, "groups": groups}, allow_nan=False).encode()


def _describe(check: Check, model: str) -> dict[str, Any]:
    """Return both sides of a check by column. Columns without a score stay out: they stop the report."""
    if check.yardstick is None:
        raise ValueError(f"the check of {check.group} was not measured")
    scored = {column.name: column for column in check.columns if column.score is not None}
    current: dict[str, list[Any]] = {}
    reference: dict[str, list[Any]] = {}
    for place, name in enumerate(NUMERIC):
        if name in scored:
            values = [float(row.numbers[place]) for row in _rows(check, name, model)]
            current[name] = [value for value in values if np.isfinite(value)]
            reference[name] = check.yardstick.numbers[name].astype(np.float64).tolist()
    for name in CATEGORICAL:
        if name in scored:
            known = check.yardstick.words[name].words
            words = [str(getattr(row, name)) for row in _rows(check, name, model)]
            told = [word if word in known else OTHER for word in words]
            current[name] = _stretch(told, len(check.window.rows))
            reference[name] = _spell(check.yardstick, name)
    return {
        "numeric": [name for name in NUMERIC if name in current],
        "words": [name for name in CATEGORICAL if name in current],
        "thresholds": {name: scored[name].threshold for name in current},
        "current": current,
        "reference": reference,
    }


def _rows(check: Check, name: str, model: str) -> list[Any]:
    rows = check.window.rows
    return [row for row in rows if row.model == model] if model and name in OF_MODEL else rows


def _spell(yardstick: Yardstick, name: str) -> list[Any]:
    """Return words as often as the reference has them."""
    vocabulary = yardstick.words[name]
    told = zip((*vocabulary.words, OTHER), vocabulary.counts.tolist(), strict=True)
    return [word for word, count in told for _ in range(int(count))]


def _stretch(words: list[str], length: int) -> list[str]:
    """Return words in the same shares, ``length`` of them: Evidently takes a gap for a word."""
    return [words[place * len(words) // length] for place in range(length)]
