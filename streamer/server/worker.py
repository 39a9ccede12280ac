"""A worker process: one event loop that serves clients. The supervisor starts it with its socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from inference.ipc.child_process import settle
from inference.ipc.shared_status import SharedStatus
from inference.telemetry.metrics import name_process
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.child_environment import inherited_settings
from streamer.core.logs import set_up_logging
from streamer.core.turn_selector import make_loop
from streamer.drift.shared_document import SharedDocument
from streamer.http.body import BUDGET
from streamer.server.app import FULLNESS, Resources
from streamer.server.heartbeat import beat
from streamer.server.serving import make_runner

log = logging.getLogger("streamer.worker")

#: Draining value in the shared status that means: no need to wait until balancers have noticed.
_DRAIN_AT_ONCE = 2


async def serve(resources: Resources, listener: socket.socket) -> None:
    """Serve until SIGTERM, then drain in phases and return."""
    settings = resources.settings
    runner, drain = await make_runner(resources, listener)
    app = runner.app
    beating = asyncio.create_task(
        beat(resources.shared_status, resources.number, resources.metrics, app[BUDGET], app[FULLNESS]),
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
    """Run ``python -m streamer.server.worker NUMBER LISTENER STATUS PAGE CHANNEL ADDRESS SAMPLING``.

    The addresses are those of the inference process and of the sampling process, which is empty without one.
    An optional last argument is the descriptor of the socket for metrics, if they have a port of their own.
    """
    number_text, listener_fd, status_fd, page_fd, channel_fd, *addresses = sys.argv[1:]
    settle()
    settings = inherited_settings()
    set_up_logging(settings.log_level, settings.log_format, [*settings.keys, settings.turn_secret])
    name_process(f"worker-{number_text}")
    listener = socket.socket(fileno=int(listener_fd))
    with contextlib.suppress(KeyboardInterrupt):
        resources = Resources(
            number=int(number_text),
            settings=settings,
            metrics=WorkerMetrics(),
            shared_status=SharedStatus(int(status_fd)),
            drift_page=SharedDocument(int(page_fd)),
            inference_address=addresses[0],
            sampling_address=addresses[1],
            metrics_listener=socket.socket(fileno=int(addresses[2])) if addresses[2:] else None,
            metrics_dir=Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]),
            channel=socket.socket(fileno=int(channel_fd)),
        )
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(serve(resources, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
