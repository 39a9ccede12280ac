"""The supervisor: starts inference process, workers and observer, watches them, restarts and drains them.

It owns what must outlive any of them: the listening sockets, the inference address, the board, the
metrics folder. It loads neither aiohttp nor a model, so there is little in it that could fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time

from inference.board import State
from inference.child_process import spawn
from inference.handle import FINAL_EXIT_CODES, InferenceHandle
from inference.metric_store import MetricStore
from inference.metrics import STORE_VARIABLE, name_process
from inference.settings import InferenceSettings
from streamer.child_environment import ChildEnvironment
from streamer.metrics import SupervisorMetrics
from streamer.observer.handle import ObserverHandle
from streamer.settings import Settings
from streamer.supervising.backoff import MAX_S, Backoff
from streamer.supervising.failures import EXIT_CANNOT_START, EXIT_KEEPS_DYING, CannotStart
from streamer.supervising.listening import listen
from streamer.supervising.log_relay import LogRelay
from streamer.supervising.log_writer import LogWriter
from streamer.supervising.private_folder import PrivateFolder, remove_leftovers
from streamer.supervising.signals import AT_ONCE, on_signals

log = logging.getLogger("streamer.supervisor")

WATCH_S = 0.5
#: No beat of the inference loop for this long: it hangs outside of a run.
BEAT_LIMIT_S = 5.0
#: Beyond the workers' own drain time, before they are killed.
KILL_AFTER_S = 5.0


class Supervisor:
    """Runs the service until a signal, or until it cannot go on. Construct, then ``await run()``."""

    def __init__(self, settings: Settings, writer: LogWriter) -> None:
        self._settings = settings
        self._relay = LogRelay(writer)
        self._models = settings.models()
        if not self._models:
            raise CannotStart(
                "no model: set MODEL_V1_PATH to an ONNX detector (docs/models.md lists the families served), "
                "or put one at models/yolov9_v1.onnx; the bundled models/codes_v1.onnx is missing"
            )
        self._sockets = listen(settings.host, settings.port, settings.workers)
        #: One for each worker, as above; none where metrics are on the main port.
        self._metrics_sockets: list[socket.socket] = []
        if settings.metrics_port:
            self._metrics_sockets = listen(settings.host, settings.metrics_port, settings.workers)
        remove_leftovers()
        self._folder = PrivateFolder()
        # Workers, and inference process, observer and supervisor.
        self._store = MetricStore(processes=settings.workers + 3)
        os.environ |= self._relay.environment() | {
            # prometheus_client wants a folder; the values themselves lie in the store.
            "PROMETHEUS_MULTIPROC_DIR": str(self._folder.path),
            STORE_VARIABLE: str(self._store.fd),
        }
        name_process("supervisor")
        self._metrics = SupervisorMetrics()
        self._inference = InferenceHandle(
            InferenceSettings(
                models={version: str(path) for version, path in self._models.items()},
                device=settings.device,
                batch_max=settings.batch_max,
                lanes=settings.inference_lanes,
                interactive_share=settings.interactive_share,
                engine_cache_dir=str(settings.engine_cache_dir or ""),
                log_level=settings.log_level,
                log_json=writer.json_lines,
                metrics_dir=str(self._folder.path),
            ),
            [self._store.fd],
        )
        self._observer = ObserverHandle(settings, self._inference.board, [self._store.fd])
        self._inference_environment = ChildEnvironment(settings, None)
        self._worker_environment = ChildEnvironment(settings, settings)
        #: The only one with the store's credentials; it asks nobody for a key of ours.
        self._observer_environment = ChildEnvironment(settings, settings.public, credentials=True)
        #: Running workers by number.
        self._workers: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._failure: CannotStart | None = None

    @property
    def port(self) -> int:
        """The port in use, which the kernel chose when the setting is 0."""
        return int(self._sockets[0].getsockname()[1])

    async def run(self) -> int:
        """Start everything, watch it, drain it. Returns the exit code."""
        on_signals(self._start_drain, self._kill_workers)
        if not self._settings.wants_keys:
            if self._settings.listens_on_loopback:
                log.info(
                    "no keys are set: the service listens on loopback only, for programs of this machine"
                )
            else:
                log.warning(
                    "no keys are set (ALLOW_ANONYMOUS): whoever reaches this port may use the service"
                )
        log.info(
            "listening on http://%s:%d with %d worker(s), models: %s",
            self._settings.host,
            self.port,
            self._settings.workers,
            ", ".join(f"{version}={path.name}" for version, path in self._models.items()),
        )
        tasks = [asyncio.create_task(self._keep_inference(), name="inference")]
        tasks += [
            asyncio.create_task(self._keep_worker(number), name=f"worker-{number}")
            for number in range(self._settings.workers)
        ]
        tasks.append(asyncio.create_task(self._watch(), name="watch"))
        if self._settings.sampling:
            tasks.append(asyncio.create_task(self._keep_observer(), name="observer"))
        try:
            await self._stopping.wait()
            await self._drain()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._release()
        if self._failure is not None:
            log.error("stopping: %s", self._failure)
            return self._failure.exit_code
        log.info("stopped")
        return 0

    def _start_drain(self, how: int) -> None:
        self._inference.board.post("draining", how)
        self._stopping.set()

    def _kill_workers(self) -> None:
        for worker in self._workers.values():
            _signal(worker, signal.SIGKILL)

    def _fail(self, failure: CannotStart) -> None:
        if self._failure is None:
            self._failure = failure
        self._start_drain(AT_ONCE)

    # -- children ------------------------------------------------------------------------------------

    async def _keep_inference(self) -> None:
        delays = Backoff()
        while True:
            started = time.monotonic()
            with self._relay.output_of("inference") as output:
                await self._inference.start(self._inference_environment.variables, output)
            code = await self._inference.wait()
            if self._stopping.is_set():
                return
            if code in FINAL_EXIT_CODES:
                self._fail(CannotStart("the inference process refused to start (see above)", code))
                return
            try:
                delay_s = delays.next_delay_s(time.monotonic() - started)
            except OverflowError as error:
                self._fail(CannotStart(f"the inference process keeps dying: {error}", EXIT_KEEPS_DYING))
                return
            board = self._inference.board
            board.post("restarts", board.read("restarts") + 1)
            self._metrics.restarts.labels("inference").inc()
            log.error("the inference process ended with %s; restarting in %.1f s", _reason(code), delay_s)
            await asyncio.sleep(delay_s)

    async def _keep_worker(self, number: int) -> None:
        delays = Backoff()
        while True:
            started = time.monotonic()
            worker = await self._start_worker(number)
            self._workers[number] = worker
            code = await worker.wait()
            del self._workers[number]
            if self._stopping.is_set():
                return
            if code == EXIT_CANNOT_START:
                self._fail(CannotStart(f"worker {number} cannot start (see above)"))
                return
            try:
                delay_s = delays.next_delay_s(time.monotonic() - started)
            except OverflowError as error:
                self._fail(CannotStart(f"worker {number} keeps dying: {error}", EXIT_KEEPS_DYING))
                return
            self._metrics.restarts.labels("worker").inc()
            log.error("worker %d ended with %s; restarting in %.1f s", number, _reason(code), delay_s)
            await asyncio.sleep(delay_s)

    async def _keep_observer(self) -> None:
        """Without it no sample is taken, and nothing else is missing: it is never a reason to stop."""
        delays = Backoff()
        while True:
            started = time.monotonic()
            with self._relay.output_of("observer") as output:
                await self._observer.start(self._observer_environment, output)
            code = await self._observer.wait()
            if self._stopping.is_set():
                return
            try:
                delay_s = delays.next_delay_s(time.monotonic() - started)
            except OverflowError:
                delay_s = MAX_S
            self._metrics.restarts.labels("observer").inc()
            log.error("the observer ended with %s; restarting in %.1f s", _reason(code), delay_s)
            await asyncio.sleep(delay_s)

    async def _start_worker(self, number: int) -> asyncio.subprocess.Process:
        listener, board_fd = self._sockets[number].fileno(), self._inference.board.fd
        page_fd = self._observer.page.fd
        metrics_fds = [each.fileno() for each in self._metrics_sockets[number : number + 1]]
        arguments = [*map(str, (number, listener, board_fd, page_fd))]
        environment = self._worker_environment
        with self._relay.output_of(f"worker-{number}") as output:
            return await spawn(
                "streamer.worker",
                [*arguments, self._inference.address, self._observer.address, *map(str, metrics_fds)],
                descriptors=(
                    *(listener, board_fd, page_fd, self._store.fd),
                    *metrics_fds,
                    *environment.descriptors,
                ),
                environment=environment.variables,
                output=output,
            )

    async def _watch(self) -> None:
        """Kill an inference process whose loop no longer turns; the keeper then starts another."""
        board = self._inference.board
        state_since, state = time.monotonic(), board.state
        while True:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            if board.state is not state:
                state_since, state = now, board.state
            if self._inference.distrusted:
                log.error("killing the inference process: a worker got a message that does not parse")
                board.post("state", State.DOWN)
                self._inference.signal(signal.SIGKILL)
            elif state is State.READY:
                if not board.alive(now, beat_limit_s=BEAT_LIMIT_S):
                    what = "a model run hangs" if board.hung(now) else "its loop does not turn"
                    log.error("killing the inference process: %s", what)
                    board.post("state", State.DOWN)
                    self._inference.signal(signal.SIGKILL)
            elif state is not State.DOWN and now - state_since > self._settings.model_start_timeout_s:
                log.error("killing the inference process: not ready after %.0f s", now - state_since)
                self._inference.signal(signal.SIGKILL)

    # -- the end -------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Workers first: they need the inference process to finish what they have accepted."""
        # They hold the sockets too. While ours were open, a port that no worker serves any more would
        # still take connections, and reset them in the end.
        for listener in (*self._sockets, *self._metrics_sockets):
            listener.close()
        for worker in self._workers.values():
            _signal(worker, signal.SIGTERM)
        patience_s = self._settings.drain_delay_s + self._settings.drain_timeout_s + KILL_AFTER_S
        waiting = [asyncio.create_task(worker.wait()) for worker in self._workers.values()]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=patience_s)
            if late:
                log.error("%d worker(s) did not finish within %.0f s", len(late), patience_s)
                self._kill_workers()
        # Beside the inference process: it keeps what the workers sent last, and delivers for a while.
        observer = asyncio.create_task(self._observer.stop(self._settings.samples_drain_s + KILL_AFTER_S))
        self._inference.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(KILL_AFTER_S):
                await self._inference.wait()
        self._inference.signal(signal.SIGKILL)
        if not await observer:
            log.error("the observer did not end; what it had accepted is kept for the next start")

    def _release(self) -> None:
        for listener in (
            *self._sockets,
            *self._metrics_sockets,
        ):  # still open where the drain was never reached
            listener.close()
        self._inference.close()
        self._observer.close()
        for environment in (self._worker_environment, self._observer_environment):
            environment.close()
        self._relay.close()
        self._folder.remove()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        process.send_signal(number)


def _reason(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
