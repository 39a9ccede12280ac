"""Starts, watches, restarts and drains the engines, the workers and the sampling process.

The supervisor owns what must outlive each of them: the listening sockets, the addresses of the engines (which
`engines` keeps running), the shared status and the metrics folder. It loads neither aiohttp nor a model, so
that little in it can fail.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time

from inference.core.metric_setup import STORE_VARIABLE, name_process
from inference.core.metric_store import MetricStore
from inference.core.settings import InferenceSettings
from inference.ipc.shared_status import ENGINE_SLOTS, SharedStatus
from streamer.accounting.metrics import SupervisorMetrics
from streamer.config.child_environment import ChildEnvironment
from streamer.config.settings import Settings
from streamer.sampling.process_handle import SamplingProcessHandle
from streamer.supervisor.control_socket import ControlSocket
from streamer.supervisor.engines import Engines, Launch, ending_of
from streamer.supervisor.listeners import FallbackAcceptor, listen
from streamer.supervisor.log_relay import LogRelay
from streamer.supervisor.log_writer import LogWriter
from streamer.supervisor.private_folder import PrivateFolder, remove_leftovers
from streamer.supervisor.restart_policy import (
    EXIT_CANNOT_START,
    EXIT_KEEPS_DYING,
    CannotStart,
    CrashLoop,
    RestartPolicy,
)
from streamer.supervisor.signals import AT_ONCE, on_signals
from streamer.supervisor.startup_log import log_access, log_listening, log_ready, log_split
from streamer.supervisor.version_changes import VersionChanges, verbs_of
from streamer.supervisor.version_shares import SHARES, VersionShares
from streamer.supervisor.watchdog import Watchdog, WatchedProcess, watch_sampling_process
from streamer.supervisor.worker_handle import WorkerHandle
from streamer.versions.model_path import model_folders
from streamer.versions.state_file import StateFile, state_path

log = logging.getLogger("streamer.supervisor")

#: Time that the supervisor gives a process beyond its own time to stop, before it kills the process.
KILL_AFTER_S = 5.0


class Supervisor:
    """Runs the service until a signal ends it or it cannot go on. Construct it, then ``await run()``."""

    def __init__(self, settings: Settings, writer: LogWriter) -> None:
        self._settings = settings
        self._relay = LogRelay(writer)
        configured = settings.models()
        if not configured:
            raise CannotStart(
                "no model: set MODEL_V1_PATH to an ONNX detector (docs/models.md lists the families served), "
                "or put one at models/yolov9_v1.onnx; the bundled models/codes_v1.onnx is missing"
            )
        state_file = StateFile(
            state_path(configured, settings.models_dir, settings.versions_state_file), configured
        )
        state = state_file.restore()
        self._models = {version: model.path for version, model in state.current.items()}
        self._sockets = listen(settings.host, settings.port, settings.workers)
        #: One for each worker; empty when metrics are served on the main port.
        self._metrics_sockets: list[socket.socket] = []
        if settings.metrics_port:
            self._metrics_sockets = listen(settings.host, settings.metrics_port, settings.workers)
        remove_leftovers()
        self._folder = PrivateFolder()
        # Besides the workers these are the engines, the sampling process and the supervisor.
        self._store = MetricStore(processes=settings.workers + ENGINE_SLOTS + 2)
        os.environ |= self._relay.environment() | {
            # prometheus_client requires a folder; the values themselves are in the store.
            "PROMETHEUS_MULTIPROC_DIR": str(self._folder.path),
            STORE_VARIABLE: str(self._store.fd),
        }
        name_process("supervisor")
        self._metrics = SupervisorMetrics()
        self._crash_loop = CrashLoop()
        self._stopping = asyncio.Event()
        self._shared_status = shared_status = SharedStatus()
        self._engines = Engines(
            InferenceSettings(
                models={version: str(path) for version, path in self._models.items()},
                device=settings.device,
                batch_max=settings.batch_max,
                inference_threads=settings.inference_lanes,
                interactive_share=settings.interactive_share,
                engine_cache_dir=str(settings.engine_cache_dir or ""),
                log_level=settings.log_level,
                log_json=writer.json_lines,
                metrics_dir=str(self._folder.path),
                model_keep_max_bytes=settings.model_keep_max_bytes,
                code_classes=tuple(sorted(settings.code_classes)) if settings.read_codes else (),
                code_classes_given="read_codes_classes" in settings.model_fields_set,
            ),
            shared_status,
            Launch(
                ChildEnvironment(settings, None),
                self._relay,
                [self._store.fd],
                settings.model_start_timeout_s,
            ),
            self,
        )
        self._sampling = SamplingProcessHandle(settings, shared_status, [self._store.fd])
        self._worker_environment = ChildEnvironment(settings, settings)
        #: Only the sampling process gets the store's credentials, and it gets no API keys.
        self._sampling_environment = ChildEnvironment(settings, settings.public, credentials=True)
        shared_status.post("workers", settings.workers)
        shared_status.post("started", time.monotonic())
        log_split(settings, self._models)
        self._workers = [
            WorkerHandle(number, port, shared_status) for number, port in enumerate(self._sockets)
        ]
        self._changes = VersionChanges(
            self._engines,
            state_file,
            state,
            model_folders(configured, settings.models_dir),
            keep_s=settings.rollback_keep_s,
        )
        shares = VersionShares(
            shared_status, {name: getattr(settings, name) for name in SHARES}, self._changes
        )
        shares.restore(state.extra)
        workers = self._workers
        self._control = ControlSocket(lambda: {each.pid for each in workers if each.pid is not None})
        for verb, handler in verbs_of(self._changes).items():
            self._control.add(verb, handler)
        self._control.add("share", shares.set)
        self._engines.channels = [worker.channel for worker in self._workers]
        #: Whether the engines and the sampling process are being stopped.
        self._ending = False
        #: None until `run` creates it.
        self._fallback_acceptor: FallbackAcceptor | None = None
        self._failure: CannotStart | None = None

    @property
    def port(self) -> int:
        """The port in use; the kernel chooses it when the setting is 0."""
        return int(self._sockets[0].getsockname()[1])

    @property
    def stopping(self) -> bool:
        """Whether the service is being ended."""
        return self._stopping.is_set()

    async def run(self) -> int:
        """Start everything, watch it, drain it. Returns the exit code."""
        on_signals(self._start_drain, self._kill_workers)
        log_access(self._settings)
        log_listening(self._settings, self.port, self._models)
        self._engines.start()
        await self._control.start()
        tasks = [
            asyncio.create_task(self._keep_worker(worker), name=f"worker-{worker.number}")
            for worker in self._workers
        ]
        tasks.append(asyncio.create_task(self._make_watchdog().run(), name="watchdog"))
        self._fallback_acceptor = FallbackAcceptor(
            self._shared_status,
            self._sockets,
            [worker.channel for worker in self._workers],
            self._settings.root_path,
        )
        if self._settings.sampling:
            tasks.append(asyncio.create_task(self._keep_sampling(), name="sampling"))
        ready = log_ready(self._settings, self.port, self._shared_status)
        tasks.append(asyncio.create_task(ready, name="ready"))
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
        self._shared_status.post("draining", how)
        self._stopping.set()

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.signal(signal.SIGKILL)

    def fail(self, failure: CannotStart) -> None:
        """End the service, with the exit code of the first failure."""
        if self._failure is None:
            self._failure = failure
        self._start_drain(AT_ONCE)

    # -- children ------------------------------------------------------------------------------------

    async def _keep_worker(self, worker: WorkerHandle) -> None:
        policy = RestartPolicy()
        name = f"worker {worker.number}"
        page_fd, table_fd = self._sampling.drift_document.fd, self._engines.document.fd
        metrics_fds = [each.fileno() for each in self._metrics_sockets[worker.number : worker.number + 1]]
        while True:
            started = time.monotonic()
            with self._relay.output_of(f"worker-{worker.number}") as output:
                await worker.start(
                    [
                        *(str(page_fd), str(table_fd), self._sampling.address, self._control.address),
                        *map(str, metrics_fds),
                    ],
                    [page_fd, table_fd, self._store.fd, *metrics_fds],
                    self._worker_environment,
                    output,
                )
            code = await worker.wait()
            if self._stopping.is_set():
                return
            if code == EXIT_CANNOT_START:
                self.fail(CannotStart(f"{name} cannot start (see above)"))
                return
            if not await self.pause_after("worker", name, code, policy, started):
                return

    async def _keep_sampling(self) -> None:
        """Keep the sampling process running. Its failures never stop the service."""
        policy = RestartPolicy(max_deaths=sys.maxsize)
        while True:
            started = time.monotonic()
            with self._relay.output_of("observer") as output:
                await self._sampling.start(self._sampling_environment, output)
            code = await self._sampling.wait()
            if self._stopping.is_set():
                return
            await self.pause_after("observer", "the sampling process", code, policy, started)

    async def pause_after(
        self,
        role: str,
        name: str,
        code: int,
        policy: RestartPolicy,
        started: float,
        *,
        redundant: bool = False,
    ) -> bool:
        """Count the end of a process and wait before its next start; False when it must not start again.

        ``redundant`` says that others do its work meanwhile, so that the replica stays ready.
        """
        now = time.monotonic()
        try:
            delay_s = policy.next_delay_s(now - started)
        except OverflowError as error:
            self.fail(CannotStart(f"{name} keeps dying: {error}", EXIT_KEEPS_DYING))
            return False
        self._metrics.restarts.labels(role).inc()
        if role != "observer" and not redundant:
            self._crash_loop.died(now)
        log.error("%s ended with %s; restarting in %.1f s", name, ending_of(code), delay_s)
        await asyncio.sleep(delay_s)
        return True

    def _make_watchdog(self) -> Watchdog:
        fixed = [worker.watched() for worker in self._workers]
        if self._settings.sampling:
            fixed.append(watch_sampling_process(self._sampling, lambda: self._ending))

        def watched() -> list[WatchedProcess]:
            return [*fixed, *self._engines.watched]

        def on_tick(now: float) -> None:
            self._shared_status.post("dying", self._crash_loop.is_active(now))
            self._engines.tick()
            for engine in self._engines.current.engines:
                self._metrics.engine_ready.labels(str(engine.index), engine.device).set(engine.ready)

        return Watchdog(self._shared_status, watched, on_tick)

    # -- the end -------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """End the workers, then the engines, which they need for requests already accepted."""
        self._control.close()
        self._changes.close()
        # Close this process's copies of the sockets, which the workers hold, too. While a copy is open, the
        # kernel accepts connections on a port that no worker serves any more, and resets them at the end.
        if self._fallback_acceptor is not None:
            self._fallback_acceptor.close()
        for listener in self._metrics_sockets:
            listener.close()
        for worker in self._workers:
            worker.listener.close()
            worker.signal(signal.SIGTERM)
        patience_s = self._settings.drain_delay_s + self._settings.drain_timeout_s + KILL_AFTER_S
        waiting = [asyncio.create_task(worker.wait()) for worker in self._workers if worker.pid is not None]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=patience_s)
            if late:
                log.error("%d worker(s) did not finish within %.0f s", len(late), patience_s)
                self._kill_workers()
        self._ending = True
        self._shared_status.post("ending", 1)
        # Stop the sampling process at the same time as the engines. It still stores the frames
        # that the workers sent last, and delivers samples.
        sampling_ended = asyncio.create_task(
            self._sampling.stop(self._settings.samples_drain_s + KILL_AFTER_S)
        )
        await self._engines.stop(KILL_AFTER_S)
        if not await sampling_ended:
            log.error(
                "the sampling process did not end in time; the next start delivers what it had accepted"
            )

    def _release(self) -> None:
        for listener in self._metrics_sockets:  # these are still open if the drain was not reached
            listener.close()
        for worker in self._workers:
            worker.close()
        self._engines.close()
        self._sampling.close()
        self._shared_status.close()
        for environment in (self._worker_environment, self._sampling_environment):
            environment.close()
        self._relay.close()
        self._folder.remove()
