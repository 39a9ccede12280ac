"""Answers the field `comparison` of ``GET /versions``, its pictures, and its metrics.

Every worker writes its sums to a file (`streamer.comparison.collector`); whoever is asked adds them up and
judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from inference.ipc.served_model import ServedModel
from streamer.comparison.blocks import WINDOW_S
from streamer.comparison.collector import Collector, Models, Sums, files_of, read_all
from streamer.comparison.measured_frame import SUMS, Measured
from streamer.comparison.metrics import ComparisonMetrics
from streamer.comparison.pictures import read_picture
from streamer.comparison.verdict import LEAST_UNITS, Finding, Judgement, judge
from streamer.comparison.verdict_text import remarks, sentence
from streamer.core.shared_call import SharedCall
from streamer.http.paced_response import large_answer
from streamer.http.problem_details import Problem
from streamer.server.comparison_document import (
    ComparedPicture,
    ComparedQuantity,
    ComparisonDocument,
    Counted,
    Labelled,
    Period,
)

#: A window counts this long after its end, when the files of all workers have its frames.
_GRACE_S = 15.0
_MEASURE_EVERY_S = 30.0
#: Points of the history that are told, and pictures.
_MOST_PERIODS, _MOST_PICTURES = 288, 12
_PICTURES = "/versions/pictures/{picture}"
#: A picture may be anything that a client has sent.
_PICTURE_POLICY = {"Content-Security-Policy": "sandbox; default-src 'none'"}
_SHARES = {"boxes", "disagreement", "run_ms"}


class Served(Protocol):
    """Describes the part of the inference client that the comparison needs."""

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """Served models by version."""


class Comparison:
    """Judges the served versions by what all workers of this replica have compared."""

    def __init__(self, folder: Path, worker: int, served: Served) -> None:
        """Read and write the files in ``folder``; the first worker also writes the metrics."""
        self._folder = folder
        self._worker = worker
        self.collector = Collector(folder, worker, picture_count=_MOST_PICTURES)
        self._served = served
        #: What the last judgement was made of, and the judgement.
        self._last: tuple[Any, Judgement, Sums] | None = None
        self._judged = SharedCall(self._judge)

    async def document(self, *, names: bool, pictures: bool) -> ComparisonDocument | None:
        """Return the comparison of the two served versions; None if there are not two.

        Without ``names`` there are no classes, and without ``pictures`` no pictures.
        """
        found = await self._judged.result()
        if found is None:
            return None
        judgement, sums, (first, second) = found
        return describe(judgement, sums, first, second, names=names, pictures=pictures)

    async def picture(self, request: web.Request) -> web.Response:
        """Answer a picture."""
        found = await asyncio.to_thread(read_picture, self._folder, request.match_info["picture"])
        if found is None:
            raise Problem.not_found("This picture is not kept any more; GET /versions lists those that are.")
        data, kind = found
        return large_answer(request, data, kind, _PICTURE_POLICY)

    async def lifetime(self, app: web.Application) -> AsyncIterator[None]:
        """Keep the metrics up to date while the worker runs; at the end, write what was added up."""
        task = None
        if self._worker == 0:
            task = asyncio.get_running_loop().create_task(self._measure())
        yield
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self.collector.close()

    async def _measure(self) -> None:
        # None before the first pair: services that compare nothing have no such series.
        metrics: ComparisonMetrics | None = None
        while True:
            await asyncio.sleep(_MEASURE_EVERY_S)
            if any(files_of(self._folder)):
                found = await self._judged.result()
                if found is not None:
                    metrics = metrics or ComparisonMetrics()
                    metrics.show(found[0])

    def _judge(self) -> tuple[Judgement, Sums, tuple[ServedModel, ServedModel]] | None:
        served = dict(self._served.models)
        if len(served) != 2:
            return None
        first, second = (served[version] for version in sorted(served))
        models = Models(first.version, second.version, first.info.sha256, second.info.sha256)
        window = int((time.time() - _GRACE_S) // WINDOW_S)
        stamps = []
        for path in files_of(self._folder):
            with contextlib.suppress(OSError):
                stamps.append((path.name, path.stat().st_mtime_ns))
        state = (models, window, stamps)
        if self._last is None or self._last[0] != state:
            sums = read_all(self._folder, models)
            labels = len(set(first.info.labels) & set(second.info.labels))
            judgement = judge(sums.by_stream.before(window), sums.by_time.before(window), labels)
            self._last = state, judgement, sums
        return self._last[1], self._last[2], (first, second)


def add_comparison(app: web.Application, comparison: Comparison) -> None:
    """Add the route of the pictures."""
    app.router.add_get(_PICTURES, comparison.picture, allow_head=False)
    app.cleanup_ctx.append(comparison.lifetime)


def describe(
    judgement: Judgement,
    sums: Sums,
    first: ServedModel,
    second: ServedModel,
    *,
    names: bool,
    pictures: bool,
) -> ComparisonDocument:
    """Return a judgement as the field `comparison`."""
    total = dict(zip(SUMS, judgement.total.sums, strict=True))
    hours = _hours(judgement, sums.by_time.length)
    absent: dict[str, str] = {}
    labelled = judge_by_labels(first, second, absent)
    body: ComparisonDocument = {
        "first": first.version,
        "second": second.version,
        "verdict": judgement.verdict.value,
        "text": sentence(judgement, first.version, second.version),
        "remarks": remarks(judgement, hours, second.version),
        "counted": _counted(judgement, total, hours),
        "quantities": {each.name: _quantity(each) for each in judgement.quantities},
        "classes": {},
        "both": int(total["both"]),
        "only_first": int(total["first"] - total["both"]),
        "only_second": int(total["second"] - total["both"]),
        "history": _history(judgement, sums.by_time.length),
        "absent": absent,
    }
    if labelled is not None:
        body["labelled"] = labelled
    if names:
        body["classes"] = {each.name: _quantity(each, by_class=True) for each in judgement.classes}
    else:
        absent["classes"] = "only keys with the scope `admin` see it"
        body["text"] = (
            sentence(judgement, first.version, second.version) if not judgement.classes else _public(body)
        )
    if not total["followed"]:
        absent["quantities.jitter"] = (
            "no neighbouring frames of a stream with boxes have run on both versions"
        )
    if total["first_foreign"] or total["second_foreign"]:
        absent["classes.others"] = (
            f"boxes of classes that only one version has are not compared: {int(total['first_foreign'])} of "
            f"{first.version}, {int(total['second_foreign'])} of {second.version}"
        )
    if pictures:
        body["pictures"] = [_picture(each) for each in _worst(sums.pictures)]
    else:
        absent["pictures"] = (
            "only administrators see pictures; without their keys, only programs on this machine"
        )
    return body


def _public(body: ComparisonDocument) -> str:
    """Return the verdict without names of classes."""
    text = body["text"]
    if body["verdict"] != "differs":
        return text
    head, _, rest = text.partition(": ")
    told = [each for each in rest.rstrip(".").split("; ") if "boxes of class" not in each]
    return f"{head}: {'; '.join(told) or 'in boxes of some classes'}."


def judge_by_labels(first: ServedModel, second: ServedModel, absent: dict[str, str]) -> Labelled | None:
    """Return what the scores in the manifests say of the second version; None if they say nothing.

    A paired difference that `streamer promote` has measured decides, or else intervals that do not overlap
    on the same pictures.
    """
    card = second.info.card or {}
    replaced = (card.get("promotion") or {}).get("replaced") or {}
    change = replaced.get("map50_change")
    if change and replaced.get("sha256") == first.info.sha256:
        text = (
            f"mAP50 of {second.version} is {change['value']:+.3f} (95 % interval {change['low']:+.3f} to "
            f"{change['high']:+.3f}) against {first.version} on the same pictures."
        )
        return {"verdict": _direction(change["low"], change["high"]), "text": text}
    for one in ((first.info.card or {}).get("evaluations") or {}).values():
        for other in (card.get("evaluations") or {}).values():
            if not _same_pictures(one, other):
                continue
            (low, high), (other_low, other_high) = one["intervals"]["map50"], other["intervals"]["map50"]
            text = (
                f"mAP50 {other['map50']:.3f} ({other_low:.3f} to {other_high:.3f}) of {second.version}, "
                f"{one['map50']:.3f} ({low:.3f} to {high:.3f}) of {first.version}, on the same "
                f"{one.get('pictures', '')} pictures.".replace("  ", " ")
            )
            return {"verdict": _direction(other_low - high, other_high - low), "text": text}
    absent["labelled"] = (
        "the manifests have no mAP50 of both models with intervals on the same pictures; `streamer promote` "
        "and `streamer evaluate` measure it"
    )
    return None


def _same_pictures(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    keys = ("set", "part", "pictures")
    return (
        bool(one.get("set"))
        and all(one.get(key) == other.get(key) for key in keys)
        and all("map50" in each and "map50" in each.get("intervals", {}) for each in (one, other))
    )


def _direction(low: float, high: float) -> Any:
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def _quantity(finding: Finding, *, by_class: bool = False) -> ComparedQuantity:
    body: ComparedQuantity = {
        "unit": "share" if by_class or finding.name in _SHARES else "absolute",
        "always_valid": [_rounded(finding.always_valid.low), _rounded(finding.always_valid.high)],
        "margin": finding.margin,
        "verdict": finding.verdict.value,
        "judged": finding.judged,
    }
    if finding.first is not None and finding.second is not None:
        body["first"], body["second"] = round(finding.first, 4), round(finding.second, 4)
    if finding.difference is not None:
        body["difference"] = round(finding.difference, 4)
    if finding.interval is not None:
        body["interval"] = [round(bound, 4) for bound in finding.interval]
    return body


def _rounded(bound: float | None) -> float | None:
    return None if bound is None else round(bound, 4)


def _counted(judgement: Judgement, total: Mapping[str, float], hours: float) -> Counted:
    return {
        "frames": int(total["frames"]),
        "streams": judgement.streams,
        "same_direction": judgement.same_direction,
        "blocks": judgement.blocks,
        "windows": judgement.windows,
        "windows_needed": LEAST_UNITS,
        "hours": round(hours, 2),
    }


def _hours(judgement: Judgement, length: int) -> float:
    if not judgement.history:
        return 0.0
    return (judgement.history[-1][0] + length - judgement.history[0][0]) * WINDOW_S / 3600


def _history(judgement: Judgement, length: int) -> list[Period]:
    """Return the history in a bounded number of periods."""
    joined: dict[int, Measured] = {}
    while len({window // length for window, _ in judgement.history}) > _MOST_PERIODS:
        length *= 2
    for window, block in judgement.history:
        joined.setdefault(window // length, Measured()).add(block)
    found: list[Period] = []
    for number, block in sorted(joined.items()):
        sums = dict(zip(SUMS, block.sums, strict=True))
        period: Period = {
            "at": _utc(number * length * WINDOW_S),
            "minutes": length * WINDOW_S / 60,
            "frames": int(sums["frames"]),
            "first": round(sums["first"] / sums["frames"], 3),
            "second": round(sums["second"] / sums["frames"], 3),
        }
        if sums["scores"]:
            period["agreement"] = round(sums["agreed"] / sums["scores"], 4)
        found.append(period)
    return found


def _worst(pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(pictures, key=lambda each: -each["disagreement"])[:_MOST_PICTURES]


def _picture(description: Mapping[str, Any]) -> ComparedPicture:
    return {
        "url": f"versions/pictures/{description['id']}",
        "at": _utc(description["at"]),
        "width": description["width"],
        "height": description["height"],
        "rotation": description["rotation"],
        "disagreement": description["disagreement"],
        "boxes": description["boxes"],
    }


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
