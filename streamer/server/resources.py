"""Holds what a worker's process passes to its application, and makes what runs frames from it.

Those are the view of the engines, the decoders and the dispatcher. `app.py` starts and closes them.
"""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

from inference.ipc.engine_set import EngineSet
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.accounting.code_metrics import CodeMetrics
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import Settings
from streamer.decoding.code_reader import CodeReader
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.decoder_supervisor import decoder_count
from streamer.decoding.fork_client import FORK_SERVER, READING_FORK_SERVER
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.image_header import Limits
from streamer.scheduling.admission import Admission
from streamer.scheduling.clients import Clients
from streamer.scheduling.crash_suspects import Suspects
from streamer.scheduling.device_shares import DeviceShares
from streamer.scheduling.dispatcher import Dispatcher
from streamer.webrtc.video_pool import VideoPool, video_decoder_count

#: Memory for encoded images that wait for the decoders of a worker; only pages in use are allocated.
_INPUT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Resources:
    """Holds what a worker's process passes to its application."""

    number: int
    settings: Settings
    metrics: WorkerMetrics
    shared_status: SharedStatus
    drift_page: SharedDocument
    #: Contains the engine table.
    engine_document: SharedDocument
    #: Empty when sampling is off.
    sampling_address: str
    metrics_dir: Path
    #: Address of the supervisor's control socket; empty without a supervisor.
    control_address: str = ""
    #: Socket on which metrics are served; None if they are on the main port.
    metrics_listener: socket.socket | None = None
    #: Socket over which the supervisor sends connections; None without a supervisor.
    channel: socket.socket | None = None


def make_engine_set(resources: Resources) -> EngineSet:
    """Return the worker's view of the engines; it is not started."""
    engines = EngineSet(
        resources.engine_document, number=resources.number, shared_status=resources.shared_status
    )
    engines.refresh()
    # The supervisor replaces an engine whose process sends invalid messages.
    engines.on_refused = lambda slot: resources.shared_status.post_engine(slot, "refused", time.monotonic())
    return engines


def make_decoders(resources: Resources) -> tuple[DecoderPool, VideoPool]:
    """Return the decoder pools for images and for videos; both refuse input that has killed a decoder."""
    settings, count_end = resources.settings, resources.metrics.decoder_ended
    digests = RefusedDigests(resources.metrics_dir / "harmful-images")
    pool = DecoderPool(
        decoder_count(settings.workers),
        # Room for four of the largest images; further ones wait in the worker.
        input_bytes=max(_INPUT_BYTES, 4 * max(settings.image_max_bytes, settings.stream_max_message_bytes)),
        digests=digests,
        count_end=count_end,
        note_missing=resources.metrics.protection_missing,
        module=READING_FORK_SERVER if settings.read_codes else FORK_SERVER,
    )
    return pool, VideoPool(video_decoder_count(settings.workers), digests=digests, count_end=count_end)


def make_dispatcher(
    resources: Resources, client: EngineSet, limits: Limits, decoders: DecoderPool
) -> Dispatcher:
    """Return the dispatcher, which also reads codes if the settings say so; it is not started."""
    settings, metrics = resources.settings, resources.metrics
    versions = tuple(settings.models())
    dispatcher = Dispatcher(
        client,
        metrics,
        limits,
        decoders=decoders,
        suspects=Suspects(RefusedDigests(resources.metrics_dir / "harmful-frames")),
        admission=Admission(
            metrics,
            versions,
            Clients(client.table.secret),
            queue_max=settings.request_queue_max,
            queue_s=settings.request_queue_s,
            min_fps=settings.stream_min_fps,
        ),
        interactive_share=settings.interactive_share,
        versions=versions,
    )
    dispatcher.divide_device(DeviceShares(resources.shared_status, resources.number, settings.workers))
    dispatcher.codes = _make_code_reader(resources, decoders, limits)
    return dispatcher


def _make_code_reader(resources: Resources, decoders: DecoderPool, limits: Limits) -> CodeReader | None:
    settings = resources.settings
    if not settings.read_codes:
        return None
    return CodeReader(
        decoders,
        limits,
        settings.code_classes,
        settings.read_codes_budget_ms / 1e3,
        metrics=CodeMetrics(),
        digests=RefusedDigests(resources.metrics_dir / "harmful-codes"),
    )
