"""A frame or posted image on its way through the dispatcher, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceFailed, InferenceLost
from inference.core.fair_share import Flow
from inference.ipc.client import Ticket
from inference.ipc.wire import Result, Status
from inference.preprocess.letterbox import Letterbox
from streamer.imaging.frame import DecodedFrame
from streamer.imaging.limits import Limits
from streamer.scheduling.client import NOBODY, Client
from streamer.scheduling.decode_cost import Kind
from streamer.scheduling.decode_room import Decode
from streamer.scheduling.errors import DeadlineExceeded
from streamer.scheduling.prediction import Prediction


@dataclass(slots=True, eq=False)
class Job:
    """One frame on its way; made when it is taken, forgotten when it is finished."""

    #: The encoded picture, or one that was decoded before.
    data: bytes | memoryview | DecodedFrame
    rotation: int
    params: DetectionParams
    #: Latest start of execution, monotonic seconds.
    deadline: float
    #: 0 for POSTs.
    stream: int
    finish: Callable[[Prediction | Exception], None]
    limits: Limits
    attempts: int = 0
    #: None until a slot was acquired.
    ticket: Ticket | None = None
    #: None until the frame was decoded.
    letterbox: Letterbox | None = None
    decode_ms: float = 0.0
    #: Whether the picture could be decoded in part only.
    damaged: bool = False
    #: Whether its decoder is done with it, well or not.
    decoded: bool = False
    #: Why there are no pixels; None while there is no fault.
    fault: Exception | None = None
    cancelled: bool = False
    #: Executed with nothing beside it: an inference process died of this frame, or of one like it.
    alone: bool = False
    #: Whom it is charged to.
    client: Client = NOBODY
    #: Tells the connections of a client apart; POSTs only.
    connection: int = 0
    #: Virtual start time among the client's POSTs; the queue writes it.
    tag: float = 0.0
    #: The client's place in the queue of the version; None until it waits or begins.
    flow: Flow | None = None
    #: Seconds of decoding and inference that it is expected to take; charged when it begins.
    expected_s: float = 0.0
    #: What the first bytes of a posted image say of its kind and size; None for frames.
    kind: Kind | None = None
    #: How its decoding is accounted; None until it is taken.
    decode: Decode | None = None
    #: When it began to wait, monotonic seconds.
    queued_at: float = 0.0
    #: Processor time of its decoding; 0 where nobody has measured it.
    decode_cpu_ms: float = 0.0

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for just this frame: a POST, or a frame of a stream in mode all."""
        return self.stream == 0 or self.deadline == math.inf


def outcome_of(job: Job, result: Result) -> Prediction | Exception:
    """Turn an answer into what the frame's owner gets."""
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
        )
    if result.status is Status.EXPIRED:
        return DeadlineExceeded()
    if result.status is Status.CANCELLED:
        return InferenceLost("cancelled")
    return InferenceFailed(result.detail)
