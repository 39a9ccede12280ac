"""Defines the state of a frame or posted image on its way through the dispatcher, and its outcome."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.core.errors import InferenceFailed, InferenceLost
from inference.core.fair_queueing import Flow
from inference.ipc.engine_connection import Ticket
from inference.ipc.wire import Result, Status
from inference.models.model import ModelInfo
from inference.preprocess.letterbox import Letterbox
from streamer.imaging.code_text import CodeText
from streamer.imaging.frame import DecodedFrame
from streamer.imaging.image_header import Limits
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.decode_cost import Kind
from streamer.scheduling.decode_limiter import Decode
from streamer.scheduling.errors import DeadlineExceeded


# No code changes an instance. The class is not frozen, because a frozen one takes three times as long to
# construct.
@dataclass(slots=True)
class Prediction:
    """Holds the boxes of one image and the time of each stage.

    Sizes are in pixels of the upright original.
    """

    width: int
    height: int
    #: float32 (N, 6): x1, y1, x2, y2, score, class id, highest score first.
    boxes: Boxes
    decode_ms: float
    queue_ms: float
    inference_ms: float
    postprocess_ms: float
    #: Number of images that ran together.
    batch_size: int
    #: Whether a part of the image is missing or wrong; the boxes are then those of the part that was decoded.
    damaged: bool = False
    #: The image was decoded at 1/``reduced`` of its size.
    reduced: int = 1
    #: What the codes in the first boxes contain; empty if they were not read.
    codes: Sequence[CodeText | None] = ()
    #: The model that ran, whose labels the class ids refer to; None in simulations.
    model: ModelInfo | None = None


@dataclass(slots=True, eq=False)
class Job:
    """Holds one frame, from when it is taken from its mailbox, or one posted image, from its arrival."""

    #: The encoded image, or a video frame that is decoded already.
    data: bytes | memoryview | DecodedFrame
    rotation: int
    params: DetectionParams
    #: Latest start of its model run, in monotonic seconds.
    deadline: float
    #: Key of its stream; 0 for POSTs.
    stream: int
    finish: Callable[[Prediction | Exception], None]
    limits: Limits
    attempts: int = 0
    #: The labels to which the class ids of `params` refer.
    labels: tuple[str, ...] = ()
    #: The ring slot into which it is decoded; None before it was acquired and after it was given back.
    ticket: Ticket | None = None
    #: How the image was scaled into the slot; None until it was decoded.
    letterbox: Letterbox | None = None
    decode_ms: float = 0.0
    #: Whether only a part of the image could be decoded.
    damaged: bool = False
    #: The image was decoded at 1/``reduced`` of its size.
    reduced: int = 1
    #: Whether its decoder has finished, with or without success.
    decoded: bool = False
    #: The error of decoding; None if there was none.
    fault: Exception | None = None
    cancelled: bool = False
    #: Whether no other frame may run at the same time, because the inference process died while it ran this
    #: frame or another one of its stream or client.
    alone: bool = False
    #: The client that is charged for it.
    client: Client = NOBODY
    #: Identifies the connection among those of its client; used for POSTs only.
    connection: int = 0
    #: Virtual finish time among the client's POSTs; only `PostQueue` writes it.
    tag: float = 0.0
    #: The client's flow in the version's queue; None until the job waits or starts.
    flow: Flow | None = None
    #: Expected seconds of decoding and inference; charged when it starts.
    expected_s: float = 0.0
    #: Kind and size that the first bytes of a posted image suggest; None for frames.
    kind: Kind | None = None
    #: What `DecodeLimiter` counts for its decode; None until an image is queued or a frame is taken.
    decode: Decode | None = None
    #: When it started to wait, in monotonic seconds.
    queued_at: float = 0.0
    #: Processor time of its decoding in milliseconds; 0 if not measured.
    decode_cpu_ms: float = 0.0

    @property
    def awaited(self) -> bool:
        """Whether a client waits for exactly this frame: a POST, or a frame of a stream in mode all."""
        return self.stream == 0 or self.deadline == math.inf


def outcome_of(job: Job, result: Result, model: ModelInfo) -> Prediction | Exception:
    """Convert the inference process's answer into the outcome that is passed to the job's ``finish``."""
    if result.status is Status.OK and job.letterbox is not None:
        letterbox = job.letterbox
        return Prediction(
            width=letterbox.source_width,
            height=letterbox.source_height,
            boxes=letterbox.to_source(result.boxes),
            decode_ms=job.decode_ms,
            queue_ms=result.queue_ms,
            inference_ms=result.inference_ms,
            postprocess_ms=result.postprocess_ms,
            batch_size=result.batch_size,
            damaged=job.damaged,
            reduced=job.reduced,
            model=model,
        )
    if result.status is Status.EXPIRED:
        return DeadlineExceeded()
    if result.status is Status.CANCELLED:
        return InferenceLost("cancelled")
    return InferenceFailed(result.detail)
