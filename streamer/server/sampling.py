"""Makes what a worker needs to sample frames and to run them on another version, and starts and ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from inference.ipc.shared_status import SharedStatus
from streamer.accounting.shadow_metrics import ShadowMetrics
from streamer.comparison.pair import PairSink
from streamer.config.settings import Settings
from streamer.imaging.image_header import Limits
from streamer.sampling.candidate import ShadowResult
from streamer.sampling.reports import ReportSender
from streamer.sampling.sample_sender import SampleSender
from streamer.sampling.sampler import Observation, SamplerFactory, StartShadowRunOf
from streamer.sampling.shadow import SERVED, ShadowRuns
from streamer.scheduling.idle_runs import IdleRuns


def read_share(shared_status: SharedStatus) -> float:
    """Return the share of v1's frames that also run on v2, in [0, 1]; it is the same in all workers."""
    return min(1.0, max(0.0, shared_status.read("shadow_v2")))


def make_shadow_runs(
    idle_runs: IdleRuns,
    limits: Limits,
    shared_status: SharedStatus,
    sink: PairSink,
    *,
    load: Callable[[], float],
) -> ShadowRuns:
    """Return the shadow runs of a worker, whose pairs ``sink`` gets.

    ``load`` returns the demand over the capacity of the replica.
    """
    runs = ShadowRuns(
        idle_runs, limits, ShadowMetrics(), sink, share=lambda: read_share(shared_status), load=load
    )
    runs.note_share()
    return runs


def drawn_candidates(shadow_runs: ShadowRuns) -> StartShadowRunOf:
    """Return what runs a share of v1's candidates on v2: that of the frames that are compared."""

    def start(version: str, observation: Observation, done: Callable[[ShadowResult | None], None]) -> bool:
        drawn = version == SERVED and shadow_runs.draws("candidates", observation.seq)
        return drawn and shadow_runs.start(version, observation, done)

    return start


class Sampling:
    """Holds the shadow runs, the factory of samplers, and what sends candidates and reports.

    ``address`` is that of the sampling process; it is empty if sampling is off.
    """

    def __init__(
        self, settings: Settings, address: str, count_drop: Callable[[str], None], shadow_runs: ShadowRuns
    ) -> None:
        self.shadow_runs = shadow_runs
        self._sender: SampleSender | None = None
        self._reports: ReportSender | None = None
        if not address:
            self.samplers = SamplerFactory(None, None, settings.samples_denied)
            return
        self._sender = SampleSender(address, count_drop)
        self._reports = ReportSender(address, count_drop)
        self.samplers = SamplerFactory(
            self._sender.submit,
            self._reports.start,
            settings.samples_denied,
            shadow_runs.start if settings.samples_compare else drawn_candidates(shadow_runs),
            settings.samples_candidate_s,
        )

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """Start sending; at the end, drop the frames that wait for shadow runs and send the rest."""
        if self._sender is not None:
            self._sender.start()
        yield
        self.shadow_runs.close()
        if self._reports is not None:
            await self._reports.close()
        if self._sender is not None:
            await asyncio.to_thread(self._sender.close)
