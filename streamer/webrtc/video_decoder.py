"""Decodes one stream's frames in order, in one thread of its own; nothing damaged comes out.

Every frame matters, because the next ones refer to it; which of the pictures a model sees is decided
behind this. Its neighbours are the jitter buffer before it and the stream's mailbox behind it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import av
from av.codec.context import Flags

from streamer.protocol import Codec, DropReason
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.picture import Picture
from streamer.webrtc.video_header import BadVideo, read_video_header

#: Frames that may wait for the thread: a second of video. Beyond, the machine is too slow for the stream.
MAX_WAITING = 30
#: Frames inside the decoder whose pictures have not come out; B-frames of real encoders need four.
_MAX_INSIDE = 32
_DECODERS = {Codec.VP8: "libvpx", Codec.H264: "h264"}
#: Frames without any chroma or depth surprise; what else a decoder makes is a profile nobody agreed to.
_FORMATS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one frame: a picture, or the reason why there is none."""

    frame: EncodedFrame
    picture: Picture | None
    reason: DropReason | None = None
    #: What is wrong with the video, for people; empty where the reason says it all.
    text: str = ""


class VideoDecoder:
    """Hand frames in with :meth:`put`; ``deliver`` is called in the decoder's thread for each outcome."""

    def __init__(self, codec: Codec, deliver: Callable[[Decoded], None]) -> None:
        self._codec = codec
        self._deliver = deliver
        self._frames: queue.SimpleQueue[tuple[EncodedFrame, bool] | None] = queue.SimpleQueue()
        self._closed = False
        self._context = _open(codec)
        #: Frames that the decoder has taken and not answered, by their presentation time.
        self._inside: OrderedDict[int, EncodedFrame] = OrderedDict()
        self._count = 0
        #: Until a key frame comes, everything refers to pictures that are not there.
        self._wants_key = True
        # A daemon: a decoder that hangs in a damaged frame must not keep the process.
        self._thread = threading.Thread(target=self._work, name="video-decoder", daemon=True)
        self._thread.start()

    def put(self, frame: EncodedFrame, *, after_gap: bool) -> bool:
        """Queue a frame; False when too many wait already, and this one was not taken."""
        if self._closed or self._frames.qsize() >= MAX_WAITING:
            return False
        self._frames.put((frame, after_gap))
        return True

    def close(self) -> None:
        """End the thread when it has done what it is at; does not wait for it."""
        self._closed = True
        self._frames.put(None)

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def _work(self) -> None:
        while (entry := self._frames.get()) is not None and not self._closed:
            frame, after_gap = entry
            for decoded in self._decode(frame, after_gap=after_gap):
                self._deliver(decoded)

    def _decode(self, frame: EncodedFrame, *, after_gap: bool) -> list[Decoded]:
        self._wants_key = self._wants_key or after_gap
        try:
            header = read_video_header(self._codec, frame.data)
        except BadVideo as error:
            return [self._broken(frame, str(error))]
        if self._wants_key and not header.key:
            return [Decoded(frame, None, DropReason.NO_KEYFRAME)]
        if self._wants_key:
            # What is left inside belongs to the time before the gap.
            self._context = _open(self._codec)
            self._inside.clear()
            self._wants_key = False
        self._count += 1
        self._inside[self._count] = frame
        packet = av.Packet(frame.data)
        packet.pts = self._count
        try:
            pictures = self._context.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self._inside.pop(self._count, None)
            return [self._broken(frame, f"the video is damaged: {_reason(error)}")]
        return [outcome for picture in pictures if (outcome := self._answer(picture)) is not None]

    def _answer(self, picture: av.VideoFrame) -> Decoded | None:
        """Return the outcome of the frame that ``picture`` belongs to."""
        frame = self._inside.pop(picture.pts if picture.pts is not None else self._count, None)
        while len(self._inside) > _MAX_INSIDE:  # frames that are never shown
            self._inside.popitem(last=False)
        if frame is None:
            return None
        if picture.is_corrupt:
            return self._broken(frame, "the video is damaged: a picture lacks parts")
        if picture.format.name not in _FORMATS:
            return self._broken(frame, f"pixel format {picture.format.name} was not agreed; 8 bits, 4:2:0 is")
        return Decoded(frame, Picture(picture))

    def _broken(self, frame: EncodedFrame, text: str) -> Decoded:
        self._wants_key = True
        return Decoded(frame, None, DropReason.DECODE_ERROR, text)


def _open(codec: Codec) -> av.VideoCodecContext:
    context = av.CodecContext.create(_DECODERS[codec], "r")
    if not isinstance(context, av.VideoCodecContext):
        raise TypeError(f"{_DECODERS[codec]} is no video decoder here")
    # One core at most for a stream; and frames of several threads come out late.
    context.thread_count = 1
    with contextlib.suppress(AttributeError):
        context.flags |= Flags.low_delay
    return context


def _reason(error: Exception) -> str:
    return str(error).partition("]")[2].strip()[:100] or type(error).__name__
