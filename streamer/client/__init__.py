"""Client of the detection service: streams and single requests with typed results, with and without asyncio.

The library belongs here; the command line, which uses it, is in `streamer.cli`. Importing this package loads
no server code, no PyAV and no aiohttp: the names that need them are loaded at first use. `VideoStream` needs
the extra `webrtc`; everything else comes with the base installation.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from streamer.client.detections import Detection, Detections
from streamer.client.errors import (
    BadInput,
    ClientError,
    ConnectionFailed,
    MissingPackage,
    PredictFailed,
    Rejected,
    SourceFailed,
    StreamClosed,
    UnreadOutcomes,
)
from streamer.client.frame_stream import Phase, State
from streamer.client.options import Params
from streamer.client.results import (
    Drop,
    FrameError,
    Ledger,
    Outcome,
    Prediction,
    Result,
)
from streamer.core.extras import explain_missing

if TYPE_CHECKING:
    from streamer.client.oneshot import Request, predict, predict_async, predict_many
    from streamer.client.options import Options, Tls
    from streamer.client.stream import DetectStream
    from streamer.client.sync import DetectStreamSync
    from streamer.client.video_source import VideoSource
    from streamer.client.video_stream import VideoStream

__all__ = [
    "BadInput",
    "ClientError",
    "ConnectionFailed",
    "DetectStream",
    "DetectStreamSync",
    "Detection",
    "Detections",
    "Drop",
    "FrameError",
    "Ledger",
    "MissingPackage",
    "Options",
    "Outcome",
    "Params",
    "Phase",
    "PredictFailed",
    "Prediction",
    "Rejected",
    "Request",
    "Result",
    "SourceFailed",
    "State",
    "StreamClosed",
    "Tls",
    "UnreadOutcomes",
    "VideoSource",
    "VideoStream",
    "predict",
    "predict_async",
    "predict_many",
]

#: Names that are loaded at first use, and the module of each.
_LAZY = {
    "DetectStream": "stream",
    "DetectStreamSync": "sync",
    "Options": "options",
    "Request": "oneshot",
    "Tls": "options",
    "VideoSource": "video_source",
    "VideoStream": "video_stream",
    "predict": "oneshot",
    "predict_async": "oneshot",
    "predict_many": "oneshot",
}


def __getattr__(name: str) -> Any:
    home = _LAZY.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        text = explain_missing(error)
        if text is None:
            raise
        raise MissingPackage(f"{name}: {text}") from error
