"""Runs a worker process, whose event loop serves clients. The supervisor starts it and passes its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from aiohttp import web

from inference.core.metric_setup import name_process
from inference.ipc.group_signals import settle
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.accounting.metrics import WorkerMetrics
from streamer.accounting.tracing import open_traces
from streamer.config.child_environment import inherited_settings
from streamer.core.event_loop_selector import make_loop
from streamer.core.logs import set_up_logging
from streamer.http.body import BUDGET
from streamer.http.connection_limits import TrackedConnection
from streamer.http.http_connection import MAX_HEADERS, MAX_LINE_BYTES, ConnectionHandler, limit_connections
from streamer.http.path_prefix import PATH_PREFIX
from streamer.replicas.session_router import is_private
from streamer.server.acceptor import Acceptor, close_port, limiter_for
from streamer.server.app import ENGINES, FULLNESS, LOAD, make_app
from streamer.server.liveness import beat
from streamer.server.resources import Resources

log = logging.getLogger("streamer.worker")

#: The headers of a request must be complete within this time, on new and on kept-alive connections.
HEADER_TIMEOUT_S = 15.0
READ_BUFFER_BYTES = 128 << 10
LINGER_S = 2.0
#: Time between closing the port and refusing work. It is enough for a round trip of a slow client.
LAST_REQUESTS_S = 0.25
#: When the worker shuts down, it asks its clients to reconnect at different moments within this time.
RETURN_WINDOW_S = 5.0


async def make_runner(
    resources: Resources, listener: socket.socket
) -> tuple[web.AppRunner, Callable[[float], Awaitable[None]]]:
    """Start serving on ``listener``; return the runner, and the drain to run before the runner's clean-up."""
    settings = resources.settings
    app, parts = make_app(resources)
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=settings.drain_timeout_s, handler_cancellation=True
    )
    limiter = limiter_for(settings.connections_max, settings.connections_per_address)
    app.middlewares.insert(0, limit_connections(limiter, partial(resources.shared_status.read, "draining")))
    await runner.setup()
    manager = runner.server
    if manager is None:
        raise RuntimeError("the runner was set up and has no server")
    manager.request_factory = app[PATH_PREFIX].remove_from_paths(manager.request_factory)
    loop = asyncio.get_running_loop()

    def connection(tracked: TrackedConnection | None = None) -> ConnectionHandler:
        return ConnectionHandler(
            manager,
            tracked=tracked,
            limiter=limiter,
            loop=loop,
            access_log=None,
            # The only deadline for headers that aiohttp has is this one for kept-alive connections.
            keepalive_timeout=HEADER_TIMEOUT_S,
            max_line_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            # A compressed body is refused, so it is not inflated.
            auto_decompress=False,
            # This buffer is for a body that no handler has read yet. Bytes that are read count in the budget.
            read_bufsize=READ_BUFFER_BYTES,
            # After a refusal, the rest of the body is read and dropped for this time, so that the client
            # receives the answer.
            lingering_time=LINGER_S,
        )

    port = Acceptor(
        listener,
        connection,
        limiter,
        accepted=lambda: resources.shared_status.count_accepted(resources.number),
        refused=resources.metrics.connections_refused.inc,
    )
    if resources.channel is not None:
        port.adopt_from(resources.channel, app[ENGINES].refresh)
    own_socket = parts.router.own_socket
    if own_socket is not None:
        try:
            # The folder may be missing because a clean-up has removed it.
            own_socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not is_private(own_socket.parent):
                raise PermissionError("the folder belongs to another user, or others may write to it")
            own_socket.unlink(missing_ok=True)  # a predecessor that was killed has left it behind
            # This socket stays open while draining, because other workers still forward requests about
            # sessions of this worker.
            await loop.create_unix_server(connection, str(own_socket))
        except OSError as error:  # for example, because the path has more than 107 bytes
            log.warning("workers cannot reach each other at %s (%s): set another TMPDIR", own_socket, error)

    async def drain(delay_s: float) -> None:
        # Load balancers need this time to notice from /health that the replica is draining. Meanwhile,
        # requests are served.
        await asyncio.sleep(delay_s)
        await close_port(port, listener, connection)
        # Requests on connections that were just accepted may still be on their way.
        await asyncio.sleep(LAST_REQUESTS_S)
        # This closes idle connections. From here on no new request enters, and all earlier ones are served.
        manager.pre_shutdown()
        parts.dispatcher.draining = True
        window_s = min(RETURN_WINDOW_S, settings.drain_timeout_s)
        await asyncio.gather(parts.hub.drain(window_s), parts.webrtc.peers.drain(window_s))

    return runner, drain


#: Value of `draining` in the shared status that skips the time in which load balancers notice the drain.
_DRAIN_AT_ONCE = 2


async def serve(resources: Resources, listener: socket.socket) -> None:
    """Serve until SIGTERM, then drain in phases and return."""
    settings = resources.settings
    runner, drain = await make_runner(resources, listener)
    app = runner.app

    def measure(now: float) -> None:
        app[LOAD].measure(now)
        app[ENGINES].refresh()  # in case the message of the supervisor was lost

    beating = asyncio.create_task(
        beat(
            resources.shared_status,
            resources.number,
            resources.metrics,
            app[BUDGET],
            app[FULLNESS],
            measure,
        ),
        name="beat",
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    # Objects from the start-up live as long as the process: exclude them from garbage collections.
    gc.collect()
    gc.freeze()
    try:
        await stop.wait()
        delay_s = (
            0.0 if resources.shared_status.read("draining") == _DRAIN_AT_ONCE else settings.drain_delay_s
        )
        await drain(delay_s)
    finally:
        await runner.cleanup()
        beating.cancel()


def main() -> int:
    """Run ``python -m streamer.server.worker NUMBER LISTENER STATUS PAGE CHANNEL ENGINES SAMPLING CONTROL``.

    LISTENER, STATUS, PAGE, CHANNEL and ENGINES are inherited descriptors, ENGINES that of the engine table.
    SAMPLING is the address of the sampling process, and empty if sampling is off. CONTROL is the address of
    the supervisor's control socket. An optional last argument is the descriptor of the socket for metrics, if
    they have a port of their own.
    """
    number_text, listener_fd, status_fd, page_fd, channel_fd, *addresses = sys.argv[1:]
    settle()
    settings = inherited_settings()
    set_up_logging(
        settings.log_level, settings.log_format, [*settings.keys, *settings.admin_keys, settings.turn_secret]
    )
    name_process(f"worker-{number_text}")
    listener = socket.socket(fileno=int(listener_fd))
    with contextlib.suppress(KeyboardInterrupt):
        resources = Resources(
            number=int(number_text),
            settings=settings,
            metrics=WorkerMetrics(),
            shared_status=SharedStatus(int(status_fd)),
            drift_page=SharedDocument(int(page_fd)),
            engine_document=SharedDocument(int(addresses[0])),
            sampling_address=addresses[1],
            control_address=addresses[2],
            metrics_listener=socket.socket(fileno=int(addresses[3])) if addresses[3:] else None,
            metrics_dir=Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]),
            channel=socket.socket(fileno=int(channel_fd)),
        )
        traces = resources.metrics.traces = open_traces(settings)
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(serve(resources, listener))
        if traces is not None:
            traces.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
