"""Logs what an operator should know of a start: who may use the service, what it serves, when it is ready."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path

from inference.ipc.shared_status import SharedStatus
from streamer.access.access_settings import LEAST_KEY_CHARS
from streamer.config.settings import Settings
from streamer.sampling.process_handle import SamplingStatus
from streamer.supervisor.listeners import browser_url, in_url

log = logging.getLogger("streamer.supervisor")

#: Interval at which the supervisor checks whether all processes are ready, until they are.
READY_CHECK_S = 0.1
#: How long the log message that the service is ready waits for the sampling process. Clients are served
#: without that process.
SAMPLING_READY_S = 10.0


def log_split(settings: Settings, models: Mapping[str, Path]) -> None:
    """Warn if clients are to be divided between versions of which one has no model."""
    if settings.split_v2 and "v2" not in models:
        log.warning("SPLIT_V2 is %g, and no model of v2 is loaded: v1 serves everybody", settings.split_v2)


def log_access(settings: Settings) -> None:
    """Say so if everybody may use the service, or if its keys may be guessed."""
    if not settings.requires_keys:
        if settings.listens_on_loopback:
            log.info("no keys are set: the service listens on loopback only, for programs on this machine")
        else:
            log.warning(
                "no keys are set (ALLOW_ANONYMOUS): all clients that reach this port may use the service"
            )
    if settings.guessable_keys:
        log.warning(
            "%d of the keys in API_KEYS and ADMIN_API_KEYS have fewer than %d characters and may be "
            "guessed; `streamer keys new` makes keys that cannot be guessed",
            settings.guessable_keys,
            LEAST_KEY_CHARS,
        )


def log_listening(settings: Settings, port: int, models: Mapping[str, Path]) -> None:
    """Say where the service listens, with how many workers, and which models it loads."""
    log.info(
        "listening on http://%s:%d with %d worker(s), models: %s",
        in_url(settings.host),
        port,
        settings.workers,
        ", ".join(f"{version}={path.name}" for version, path in models.items()),
    )


async def log_ready(settings: Settings, port: int, shared_status: SharedStatus) -> None:
    """Log the address to open, once every process is ready."""
    while not all(shared_status.read_worker(number, "ready") for number in range(settings.workers)):
        await asyncio.sleep(READY_CHECK_S)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SAMPLING_READY_S):
            while shared_status.read("sampling") == SamplingStatus.STARTING:
                await asyncio.sleep(READY_CHECK_S)
    log.info("ready, open %s", browser_url(settings.host, port, settings.root_path))
