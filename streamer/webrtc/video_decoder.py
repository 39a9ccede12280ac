"""Decodes one stream's frames in order, in a process of the video pool; nothing damaged comes out.

Every frame matters, because the next ones refer to it; which of the pictures a model sees is decided
behind this. Its neighbours are the jitter buffer before it and the stream's mailbox behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.decoded_picture import Picture
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.video_messages import VideoAnswer
from streamer.webrtc.video_pool import VideoPool

#: Frames that may wait for the decoder: a second of video. Beyond, the machine is too slow for the stream.
MAX_WAITING = 30


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one frame: a picture, or the reason why there is none."""

    frame: EncodedFrame
    picture: Picture | None
    reason: DropReason | None = None
    #: What is wrong with the video, for people; empty where the reason says it all.
    text: str = ""


class VideoDecoder:
    """Hand frames in with :meth:`put`; ``deliver`` is called on the event loop for each outcome.

    ``charge`` is called with the seconds of processor time that each frame took.
    """

    def __init__(
        self,
        codec: Codec,
        deliver: Callable[[Decoded], None],
        pool: VideoPool,
        charge: Callable[[float], None] = lambda _cpu_s: None,
    ) -> None:
        self.codec = codec
        self._deliver = deliver
        self._charge = charge
        self._pool = pool
        self._stream = pool.open(self)
        self._waiting = 0
        self._closed = False

    def put(self, frame: EncodedFrame, *, after_gap: bool) -> bool:
        """Queue a frame; False when too many wait already, and this one was not taken."""
        if self._closed or self._waiting >= MAX_WAITING:
            return False
        self._waiting += 1
        if not self._pool.send(self._stream, frame, fresh=after_gap):
            self._waiting -= 1
            return False
        return True

    def close(self) -> None:
        """Let the decoder go; what it still holds has no outcome."""
        if not self._closed:
            self._closed = True
            self._pool.close_stream(self._stream)

    def was_read(self, cpu_s: float) -> None:
        """The decoder has read one of the frames; called by the pool."""
        self._waiting -= 1
        if cpu_s > 0:
            self._charge(cpu_s)

    def restarted(self) -> None:
        """The decoder has nothing any more; called by the pool."""
        self._waiting = 0

    def answered(self, frame: EncodedFrame, answer: VideoAnswer, picture: Picture | None) -> None:
        """A frame has an outcome; called by the pool."""
        if self._closed:
            return
        if picture is not None:
            self._deliver(Decoded(frame, picture))
            return
        self._deliver(Decoded(frame, None, answer.reason, answer.text))
