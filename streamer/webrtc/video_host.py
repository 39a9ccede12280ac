"""A worker's side of one video decoder process: frames go in, outcomes and pictures come out.

All methods belong to the event loop, but pictures may be dropped in any thread.
"""

from __future__ import annotations

import mmap
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from streamer.decoding.arena import ArenaFull, sealed_memory
from streamer.decoding.decoder_group import DecoderGroup
from streamer.decoding.messages import Verdict
from streamer.decoding.messages import unpack_answer as unpack_ready
from streamer.protocol.wire import Codec
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.video_messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Layout,
    Request,
    VideoAnswer,
    VideoRequest,
    pack_request,
    unpack_answer,
)

#: Encoded frames on their way to the process.
_INPUT_BYTES = 32 << 20
#: Pictures that are in use at the same time; pages are taken when they are written to. 38 of 4096x2304.
_PICTURE_BYTES = 512 << 20
#: Frames of all streams of a process after which one that gave no picture is given up.
_MAX_HIDDEN = 4096
Image = npt.NDArray[np.uint8]


class Stream(Protocol):
    """A stream that the process decodes."""

    codec: Codec

    def restarted(self) -> None:
        """The process has ended; another one takes the stream, and all frames have an outcome."""

    def was_read(self, cpu_s: float) -> None:
        """The process has read one frame, which took so long to decode, and takes another in its place."""

    def answered(self, frame: EncodedFrame, answer: VideoAnswer, picture: Picture | None) -> None:
        """A frame has an outcome."""


@dataclass(frozen=True, slots=True)
class _Input:
    """A frame that the process has not read yet; implements `watchdog.Held`."""

    offset: int
    length: int
    #: Monotonic seconds.
    sent_at: float


class VideoHost:
    """One process and the streams that it decodes."""

    def __init__(self) -> None:
        self._pictures_fd = sealed_memory("video-pictures", _PICTURE_BYTES)
        self._pictures = np.frombuffer(mmap.mmap(self._pictures_fd, _PICTURE_BYTES), np.uint8)
        self.group = DecoderGroup(_INPUT_BYTES, [self._pictures_fd])
        self.streams: dict[int, Stream] = {}
        #: What the process has not read yet, by the frame's number.
        self.held: dict[int, _Input] = {}
        #: Frames without an outcome: their stream and themselves, oldest first.
        self._frames: dict[int, tuple[int, EncodedFrame]] = {}
        #: Offsets of pictures that nobody uses any more; appended in any thread.
        self._dropped: deque[int] = deque()

    def send(self, number: int, stream: int, frame: EncodedFrame, *, fresh: bool) -> bool:
        """Hand a frame over; False when the process has too much to do already."""
        self.release_dropped()
        arena = self.group.arena
        try:
            offset = arena.put(frame.data)
        except ArenaFull:
            return False
        codec = self.streams[stream].codec
        request = VideoRequest(Request.FRAME, stream, codec, fresh, number, offset, len(frame.data))
        if not self._ask(request):
            arena.free(offset, len(frame.data))
            return False
        self.held[number] = _Input(offset, len(frame.data), time.monotonic())
        self._frames[number] = (stream, frame)
        return True

    def close_stream(self, stream: int) -> None:
        """A stream has ended; what it has in the process is given back as it is read."""
        self.streams.pop(stream, None)
        self._ask(VideoRequest(Request.CLOSE, stream))

    def release_dropped(self) -> None:
        """Tell the process which pictures nobody uses any more."""
        while self._dropped:
            if not self._ask(VideoRequest(Request.RELEASE, 0, offset=self._dropped[0])):
                return
            self._dropped.popleft()

    def read(self, on_ready: Callable[[VideoHost, bytes], None]) -> None:
        """Take all answers that have come. Raises MalformedMessage for what is none."""
        try:
            while not self.group.closed:
                data = self.group.channel.recv(MAX_MESSAGE_BYTES)
                if not data:
                    return
                if data[0] == Verdict.READY:
                    unpack_ready(data)
                    on_ready(self, data)
                else:
                    self._answered(unpack_answer(data, _PICTURE_BYTES))
        except BlockingIOError:
            return

    def abandon(self) -> dict[int, list[EncodedFrame]]:
        """The process is gone: return the frames that have no outcome, by stream, oldest first."""
        left: dict[int, list[EncodedFrame]] = {}
        for stream, frame in self._frames.values():
            left.setdefault(stream, []).append(frame)
        self._frames.clear()
        self.held.clear()
        return left

    def frame(self, number: int) -> tuple[int, EncodedFrame] | None:
        """Return the stream and the frame of that number; None when it has an outcome."""
        return self._frames.get(number)

    def close(self) -> None:
        """End the process. Pictures that are in use keep the memory."""
        self.group.close()
        os.close(self._pictures_fd)

    def _ask(self, request: VideoRequest) -> bool:
        if self.group.closed:
            return True  # there is nobody whom it could concern
        try:
            self.group.channel.send(pack_request(request))
        except (BlockingIOError, ConnectionError):
            return False
        return True

    def _answered(self, answer: VideoAnswer) -> None:
        if answer.kind is Answer.READ:
            read = self.held.pop(answer.number, None)
            if read is not None:
                self.group.arena.free(read.offset, read.length)
                reader = self.streams.get(answer.stream)
                if reader is not None:
                    # It may say anything, but it cannot have worked for longer than it had the frame.
                    reader.was_read(min(answer.cpu_us / 1e6, time.monotonic() - read.sent_at))
            self._forget_hidden(answer)
            return
        picture = self._picture(answer) if answer.kind is Answer.PICTURE else None
        stream, frame = self._frames.get(answer.number, (-1, None))
        if frame is None or stream != answer.stream:
            return
        del self._frames[answer.number]
        taker = self.streams.get(stream)
        if taker is not None:
            taker.answered(frame, answer, picture)

    def _forget_hidden(self, answer: VideoAnswer) -> None:
        """Forget frames that were read long ago: decoders do not show all that they take."""
        oldest = answer.number - _MAX_HIDDEN
        while self._frames and next(iter(self._frames)) < oldest:
            del self._frames[next(iter(self._frames))]

    def _picture(self, answer: VideoAnswer) -> Picture:
        memory = self._pictures[answer.offset : answer.offset + answer.nbytes]
        release = partial(self._dropped.append, answer.offset)
        return Picture(answer.width, answer.height, answer.layout, memory, release)


class Picture:
    """Owns its place in the decoder's memory; pixels are made when asked for, in the thread that asks.

    ``release`` is called when nobody uses the picture any more, in whichever thread that happens.
    """

    def __init__(
        self, width: int, height: int, layout: Layout, memory: Image, release: Callable[[], None]
    ) -> None:
        self.width = width
        self.height = height
        self._layout = layout
        self._memory = memory
        self._release = release

    def __del__(self) -> None:
        self._release()

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels."""
        return 3 * self.width * self.height

    def pixels(self) -> Image:
        """Return the picture as uint8 BGR (height, width, 3), in memory of its own."""
        if self._layout is Layout.BGR:
            return self._memory.reshape(self.height, self.width, 3).copy()
        planes = self._memory.reshape(self.height * 3 // 2, self.width)
        converted: Image = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        return converted
