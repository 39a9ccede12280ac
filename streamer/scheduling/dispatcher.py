"""Starts the next frame when the device has room; `version_queue` decides which frame that is.

Frames wait encoded in their streams' mailboxes; POSTs wait in a bounded queue. When the device has room, a
decoder process decodes the next frame straight into a ring slot, and the dispatcher submits the slot. So
pixels exist only for frames that are about to run, and a newer frame can replace an older one until the last
moment. `JobRunner` carries the frame from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from functools import partial

from inference.core.detection_params import DetectionParams
from inference.ipc.engine_set import EngineSet
from inference.ipc.served_model import ServedModel
from inference.models.model import ModelInfo
from streamer.accounting.metrics import WorkerMetrics
from streamer.core import clock
from streamer.decoding.annotator import annotate
from streamer.decoding.code_reader import CodeImage, CodeReader
from streamer.decoding.decode_job import DecoderLost
from streamer.decoding.decoder_pool import DecoderPool
from streamer.imaging.image_header import Limits
from streamer.scheduling.admission import Admission
from streamer.scheduling.clients import NOBODY, Caller, Client
from streamer.scheduling.crash_suspects import Suspects
from streamer.scheduling.decode_cost import Kind
from streamer.scheduling.decode_limiter import DecodeLimiter
from streamer.scheduling.device_shares import DeviceShares
from streamer.scheduling.errors import (
    DeadlineExceeded,
    OverLimit,
    Saturated,
    UnknownVersion,
)
from streamer.scheduling.idle_runs import IdleRuns
from streamer.scheduling.job import Job, Prediction
from streamer.scheduling.job_runner import JobRunner, unavailable
from streamer.scheduling.stream_rates import FAIR_RATE_S, Source
from streamer.scheduling.version_queue import VersionQueue

log = logging.getLogger("streamer.dispatch")


class Dispatcher:
    """Feeds the inference process; its callers are the POST routes and the stream sessions.

    Construct it, call ``start()`` and finally ``close()``. All methods run on the event loop.
    """

    def __init__(
        self,
        client: EngineSet,
        metrics: WorkerMetrics,
        limits: Limits,
        *,
        decoders: DecoderPool,
        suspects: Suspects,
        admission: Admission,
        interactive_share: float,
        versions: tuple[str, ...],
    ) -> None:
        self.admission = admission
        #: Reads the codes that are found; None if the service reads none.
        self.codes: CodeReader | None = None
        self.clients = admission.clients
        self._client = client
        self._decoders = decoders
        self._limits = limits
        self._metrics = metrics
        self._interactive_share = interactive_share
        self._decode_limiter = decode_limiter = DecodeLimiter(decoders.size, limits.decode_bytes)
        self._versions = {version: VersionQueue(decode_limiter, interactive_share) for version in versions}
        #: Queue of each version, which `replica_load` reads.
        self.queues: Mapping[str, VersionQueue] = self._versions
        self._shares = DeviceShares()
        self._post_queue_s = {version: metrics.stage_s.labels("post_queue", version) for version in versions}
        self.divide_device(self._shares)
        self._turns = deque(versions)
        self._runner = JobRunner(
            client,
            metrics,
            decoders,
            suspects,
            decode_limiter,
            self._versions,
            pump=self._pump,
            pump_all=self.pump_all,
        )
        #: Runs frames for which no client waits.
        self.idle_runs = IdleRuns(client, decoders, suspects, self._versions.values())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rates_task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: Whether the worker is draining: new streams are refused, earlier requests are still served.
        self.draining = False

    def divide_device(self, shares: DeviceShares) -> None:
        """Grant rates from the part of the device that ``shares`` leaves to this worker."""
        self._shares = shares
        for version, state in self._versions.items():
            state.rates.divide_device(version, shares)

    def add_version(self, version: str) -> None:
        """Serve a version that did not exist at the start."""
        if version in self._versions:
            return
        metrics = self._metrics
        metrics.preset_version(version)
        self.admission.add_version(version)
        state = self._versions[version] = VersionQueue(self._decode_limiter, self._interactive_share)
        state.rates.divide_device(version, self._shares)
        self._post_queue_s[version] = metrics.stage_s.labels("post_queue", version)
        self._runner.add_version(version)
        self._turns.append(version)

    async def start(self) -> None:
        """Start serving; the connection to the inference process may still be opening."""
        self._loop = asyncio.get_running_loop()
        self._runner.start(self._loop)
        self._decoders.start()
        self._client.on_ring = self._decoders.attach

    async def close(self) -> None:
        """Stop the decoders and answer everything that waits as unavailable."""
        if self._rates_task is not None:
            self._rates_task.cancel()
        for state in self._versions.values():
            for job in state.clear():
                job.finish(unavailable("shutting down"))
        self._runner.close()
        self._decoders.close()

    @property
    def ready(self) -> bool:
        """Whether frames can run now."""
        return self._client.ready

    def served(self, version: str) -> ServedModel:
        """Return the model of a version. Raises UnknownVersion, or Unavailable while the model loads."""
        if version not in self._versions:
            known = ", ".join(self._versions) or "none"
            raise UnknownVersion(f"No model version {version!r} is served here; known: {known}.")
        model = self._client.models.get(version)
        if model is None:
            raise unavailable("the model is being loaded and warmed up")
        return model

    def model(self, version: str) -> ModelInfo:
        """Return the model information of a version; raises the same errors as :meth:`served`."""
        return self.served(version).info

    # -- POSTs ---------------------------------------------------------------------------------------

    def check_post(
        self, version: str, caller: Caller, *, left_s: float, nbytes: int | None, kind: Kind | None = None
    ) -> None:
        """Raise OverLimit or Saturated if an image that arrived now would be refused.

        ``left_s`` is the time until its deadline. ``kind`` is its kind, once it has arrived; before that,
        ``nbytes`` is its announced size, if any. Raises the errors of :meth:`served`, too.
        """
        model, state = self.served(version), self._versions[version]
        state.expect(model)
        if kind is not None:
            decode_ms = state.expected_ms(kind, caller.client)
        else:
            decode_ms = state.expected_decode_ms(caller.client, nbytes, None)
        try:
            self.admission.check_post(state, caller, left_s=left_s, decode_ms=decode_ms)
        except (OverLimit, Saturated):
            state.load.post_refused(caller.client)
            raise

    async def predict(
        self,
        version: str,
        data: bytes | memoryview,
        params: DetectionParams,
        deadline: float,
        caller: Caller,
        kind: Kind | None = None,
    ) -> Prediction:
        """Run the model on one image and return the boxes in pixels of the upright original.

        ``deadline`` is in monotonic seconds. ``kind`` is the kind of the image, if already known. The caller
        must have called :meth:`check_post` before. Raises SchedulingError. Raises ImageError if the data is
        not an image, if its header states too large a size, or if it is damaged.
        """
        served, state = self.served(version), self._versions[version]
        with self.admission.accounted(version):
            try:
                self.admission.check_room(state)
            except Saturated:
                state.load.post_refused(caller.client)
                raise
            answered: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()

            def finish(outcome: Prediction | Exception) -> None:
                if answered.done():
                    return
                if isinstance(outcome, Exception):
                    answered.set_exception(outcome)
                else:
                    answered.set_result(outcome)

            def may_wait() -> bool:
                # The image may wait while the inference process restarts. An image that was lost with a
                # process may wait too, because it has already had its turn once.
                return caller.may_wait_long or job.attempts > 0 or not self._client.ready

            job = Job(data, 0, params, deadline, 0, finish, self._limits)
            job.client, job.connection, job.kind = caller.client, caller.connection, kind
            job.labels = served.info.labels
            now = clock.monotonic()
            self._runner.check_suspects(job, now)
            state.add(job, now)
            state.load.post_queued(caller.client)
            self._pump(version)
            try:
                return await self.admission.answer(state, job, answered, may_wait_long=may_wait)
            except (DeadlineExceeded, asyncio.CancelledError):
                self._cancel(version, job)
                raise

    async def annotate(self, data: bytes | memoryview, found: Prediction, labels: tuple[str, ...]) -> bytes:
        """Return the image with the boxes that were found on it, and the texts of codes, drawn, as JPEG.

        Raises ImageError, or Unavailable if decoders were lost while they processed it.
        """
        try:
            texts = [code and code.text for code in found.codes]
            size = (found.width, found.height)
            return await annotate(self._decoders, data, self._limits, found.boxes, labels, texts, size)
        except DecoderLost as error:
            raise unavailable(str(error)) from error

    async def read_codes(
        self, version: str, data: bytes | memoryview, found: Prediction, client: Client, deadline: float
    ) -> None:
        """Read the codes that were found on an image, and add their texts to ``found``.

        This ends after the time that the settings allow, or at ``deadline`` (monotonic seconds), and then
        adds no text. The processor time is charged to ``client``.
        """
        served = self._client.models.get(version)
        if self.codes is None or served is None:
            return
        end_s = min(deadline, clock.monotonic() + self.codes.budget_s)
        image, charge = CodeImage(data, 0, found.width, found.height), partial(self.charge, version, client)
        codes = await self.codes.read_detected(image, found.boxes, served.info, end_s, charge)
        if codes is not None:
            found.codes = codes

    def _cancel(self, version: str, job: Job) -> None:
        """Withdraw a job at any stage, because its caller has gone; a run in progress is not interrupted."""
        job.cancelled = True
        if not self._versions[version].withdraw(job) and job.ticket is not None:
            self._client.cancel(job.ticket)

    # -- streams -------------------------------------------------------------------------------------

    def admit(self, version: str, client: Client = NOBODY) -> None:
        """Check that one more stream of ``client`` would get a useful frame rate.

        Raises Saturated if it would not, OverLimit if the client's own streams are the reason, and
        UnknownVersion or Unavailable if there is no model.
        """
        model = self.served(version)
        if self.draining:
            raise unavailable("this server is shutting down")
        state = self._versions[version]
        try:
            self.admission.check_stream(state, model, client)
        except (OverLimit, Saturated):
            state.load.stream_refused(client)
            raise

    def open(self, version: str, source: Source) -> None:
        """Register a stream until :meth:`close_source` is called."""
        self._versions[version].open(source)
        if self._loop is not None and (self._rates_task is None or self._rates_task.done()):
            self._rates_task = self._loop.create_task(self._share_rates(), name="fair-rates")

    def close_source(self, version: str, key: int) -> None:
        """Forget a stream; its frames that run still finish."""
        self._versions[version].close(key)

    def offer(self, version: str, source: Source) -> None:
        """Note that a stream has a new frame in its mailbox, and start the work that can start."""
        self._versions[version].offer(source)
        self._pump(version)

    def charge(self, version: str, client: Client, cpu_s: float) -> None:
        """Charge a client for the processor seconds that the decoder of its video has used."""
        self._versions[version].charge(client, cpu_s)

    def pump_all(self) -> None:
        """Start all frames that can start; also called when the inference process has become ready."""
        self._turns.rotate()  # rotate, so that no version always goes first
        for version in tuple(self._turns):
            self._pump(version)

    # -- turns ----------------------------------------------------------------------------------------

    def _pump(self, version: str) -> None:
        """Start frames while the device has room for them."""
        model = self._client.models.get(version)
        if model is None or not self._client.ready:
            return
        state, now = self._versions[version], clock.monotonic()
        while (job := state.next(model.in_flight, now)) is not None:
            if not job.stream:
                self._post_queue_s[version].observe(now - job.queued_at)
            self.idle_runs.frame_begins()
            if not self._runner.begin(version, state, model, job):
                return
        state.load.note_full(now, full=state.full(model.in_flight))
        if state.held_by_rates:
            self._schedule_pump()

    def _schedule_pump(self) -> None:
        """Call :meth:`pump_all` in 20 ms: no event tells when a rate-limited stream may start its frame."""
        if self._timer is not None or self._loop is None:
            return

        def again() -> None:
            self._timer = None
            self.pump_all()

        self._timer = self._loop.call_later(0.02, again)

    async def _share_rates(self) -> None:
        """Grant rates periodically while there are streams; a worker without streams is not woken."""
        while any(state.rates.demands for state in self._versions.values()):
            await asyncio.sleep(FAIR_RATE_S)
            for version, state in self._versions.items():
                model = self._client.models.get(version)
                if model is not None and self._client.ready:
                    state.rates.share(model, clock.monotonic())
                else:
                    state.rates.skip()
