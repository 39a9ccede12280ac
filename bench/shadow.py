"""Measures what shadow runs cost clients: the share of v1's frames that v2 runs is 0 and 1 in turn.

One service with the bundled models gets the same load all the time, and the share changes every few
seconds, so that other load on the machine affects both alike. Each line gives, for one load, the throughput
and the p50 and p99 of the response time and the processor time of all processes for an answer, with share 0
and with share 1, their ratio, and how many frames ran on v2 and were skipped for lack of room. The loads
are full load, with as many clients as keep the service busy, and one image now and then. At full load the
ratios must be 1 within noise, and nothing may run on v2. On a machine that does other work, too, only the
processor time is comparable. On an idle service, the ratio says what a frame loses that arrives during a
run.

Run it with ``make bench BENCH=shadow``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from streamer.accounting.shadow_metrics import OUTCOMES
from tests.helpers.load import End, Tally, http_session, post_in_turn, total
from tests.helpers.service import PATIENT, ROOT, Service

STILLS = [path.read_bytes() for path in sorted(Path(ROOT, "data/stills").glob("*.jpg"))]
#: Seconds after each change of the share that are not measured.
SETTLE_S = 1.0


@dataclass(slots=True)
class Part:
    """Holds what was measured with one share."""

    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    #: Processor seconds of all processes of the service.
    cpu_s: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return self.tally.results / self.seconds


def cpu_s(service: Service) -> float:
    """Return the processor seconds that all processes of the service have used so far."""
    processes = [service.supervisor, *service.supervisor.children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def outcomes(service: Service) -> dict[str, float]:
    name = "object_detection_shadow_outcomes_total"
    return {outcome: service.metric(name, outcome=outcome) for outcome in OUTCOMES}


async def set_share(session: aiohttp.ClientSession, service: Service, share: float) -> None:
    async with session.put(f"{service.http_url}/versions/shadow", json={"v2": share}) as answer:
        assert answer.status == 200, await answer.text()


async def load(service: Service, clients: int, pause_s: float, seconds: float) -> Tally:
    """POST images with a number of clients, and return what they observed together."""
    async with http_session() as session:
        end, url = End.after(seconds), f"{service.http_url}/v1/predict"
        posts = (post_in_turn(session, url, STILLS, end, pause_s=pause_s) for _ in range(clients))
        return total(list(await asyncio.gather(*posts)))


async def measure(
    service: Service, clients: int, pause_s: float, rounds: int, seconds: float
) -> dict[float, Part]:
    """Measure share 0 and share 1 in turn, each ``rounds`` times for ``seconds``."""
    parts = {0.0: Part(), 1.0: Part()}
    async with http_session() as session:
        for number in range(2 * rounds):
            share = float((number + number // 2) % 2)  # 0 1 1 0 0 1 1 0: a drift of the machine affects both
            part = parts[share]
            await set_share(session, service, share)
            await load(service, clients, pause_s, SETTLE_S)
            before = await asyncio.to_thread(outcomes, service)
            begun, used_s = time.perf_counter(), cpu_s(service)
            part.tally.merge(await load(service, clients, pause_s, seconds))
            part.seconds += time.perf_counter() - begun
            part.cpu_s += cpu_s(service) - used_s
            after = await asyncio.to_thread(outcomes, service)
            for name in OUTCOMES:
                part.counts[name] = part.counts.get(name, 0.0) + after[name] - before[name]
    return parts


def report(name: str, parts: dict[float, Part]) -> None:
    off, on = parts[0.0], parts[1.0]
    figures = [f"{name:12}", f"{off.per_s:7.1f} → {on.per_s:7.1f} /s [{on.per_s / off.per_s:.3f}]"]
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        without, beside = off.tally.percentile_ms(share), on.tally.percentile_ms(share)
        figures.append(f"{label} {without:6.1f} → {beside:6.1f} ms [{beside / without:.3f}]")
    costs = [part.cpu_s / part.tally.results * 1e3 for part in (off, on)]
    figures.append(f"{costs[0]:.2f} → {costs[1]:.2f} ms of processor time [{costs[1] / costs[0]:.3f}]")
    skipped = on.counts["no_capacity"] + on.counts["expired"]
    figures.append(f"{on.counts['run']:.0f} ran, {skipped:.0f} skipped")
    sys.stdout.write("   ".join(figures) + "\n")


def main() -> None:
    """Measure both loads and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6, help="measurements of each share")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a measurement")
    parser.add_argument("--clients", type=int, default=8, help="clients at full load")
    arguments = parser.parse_args()
    loads = {"full load": (arguments.clients, 0.0), "one at a time": (1, 0.3)}
    with Service(PATIENT | {"SAMPLING": "0"}, bundled=True) as service:
        asyncio.run(load(service, arguments.clients, 0.0, 3 * SETTLE_S))
        for name, (clients, pause_s) in loads.items():
            report(
                name,
                asyncio.run(measure(service, clients, pause_s, arguments.rounds, arguments.seconds)),
            )


if __name__ == "__main__":
    main()
