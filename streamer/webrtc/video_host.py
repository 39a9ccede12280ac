"""The worker's side of one video decoder process: sends frames, receives outcomes and decoded frames.

All methods run on the event loop; decoded frames may be released in any thread.
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

from streamer.decoding.decoder_group import ArenaFull, DecoderGroup, sealed_memory
from streamer.decoding.messages import Verdict
from streamer.decoding.messages import unpack_answer as unpack_ready
from streamer.imaging.turning import NO_TURNING, Turning
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

#: Memory for encoded frames on their way to the process.
_INPUT_BYTES = 32 << 20
#: Memory for decoded frames in use: 37 of 4096x2304 pixels as planes. The kernel allocates its pages when
#: they are written to.
_DECODED_BYTES = 512 << 20
#: A frame without an outcome is given up after this many later frames of all streams.
_MAX_HIDDEN = 4096
Image = npt.NDArray[np.uint8]


class Stream(Protocol):
    """A stream that is decoded by a process."""

    codec: Codec

    def restarted(self) -> None:
        """Note that the process has ended and another takes the stream; frames left then get an outcome."""

    def was_read(self, cpu_s: float) -> None:
        """Note that the process has read one frame, took ``cpu_s`` to decode it, and has room for another."""

    def answered(self, frame: EncodedFrame, answer: VideoAnswer, decoded: SharedFrame | None) -> None:
        """Take the outcome of a frame."""


@dataclass(frozen=True, slots=True)
class _Input:
    """A frame that the process has not read yet; implements `decoder_watchdog.Held`."""

    offset: int
    length: int
    #: Monotonic seconds.
    sent_at: float


class VideoHost:
    """Connects one process with the streams that it decodes."""

    def __init__(self) -> None:
        self._decoded_fd = sealed_memory("video-frames", _DECODED_BYTES)
        self._decoded_memory = np.frombuffer(mmap.mmap(self._decoded_fd, _DECODED_BYTES), np.uint8)
        self.group = DecoderGroup(_INPUT_BYTES, [self._decoded_fd])
        self.streams: dict[int, Stream] = {}
        #: Frames that the process has not read yet, by their number.
        self.held: dict[int, _Input] = {}
        #: Frames without an outcome, with their stream; oldest first.
        self._frames: dict[int, tuple[int, EncodedFrame]] = {}
        #: Offsets of decoded frames that nobody uses any more. Any thread may append to it.
        self._dropped: deque[int] = deque()

    def send(self, number: int, stream: int, frame: EncodedFrame, *, fresh: bool) -> bool:
        """Send a frame to the process; False when the process has too many frames already."""
        self.release_dropped()
        arena = self.group.arena
        try:
            offset = arena.put(frame.data)
        except ArenaFull:
            return False
        codec = self.streams[stream].codec
        request = VideoRequest(Request.FRAME, stream, codec, fresh, number, offset, len(frame.data))
        if not self._request(request):
            arena.free(offset, len(frame.data))
            return False
        self.held[number] = _Input(offset, len(frame.data), time.monotonic())
        self._frames[number] = (stream, frame)
        return True

    def close_stream(self, stream: int) -> None:
        """Close a stream. The memory of its frames becomes free as the process reads them."""
        self.streams.pop(stream, None)
        self._request(VideoRequest(Request.CLOSE, stream))

    def release_dropped(self) -> None:
        """Tell the process which decoded frames are not used any more."""
        while self._dropped:
            if not self._request(VideoRequest(Request.RELEASE, 0, offset=self._dropped[0])):
                return
            self._dropped.popleft()

    def read(self, on_ready: Callable[[VideoHost, bytes], None]) -> None:
        """Process all answers that have arrived. Raises MalformedMessage for anything else."""
        try:
            while not self.group.closed:
                data = self.group.channel.recv(MAX_MESSAGE_BYTES)
                if not data:
                    return
                if data[0] == Verdict.READY:
                    unpack_ready(data)
                    on_ready(self, data)
                else:
                    self._answered(unpack_answer(data, _DECODED_BYTES))
        except BlockingIOError:
            return

    def abandon(self) -> dict[int, list[EncodedFrame]]:
        """Return the frames without an outcome, by stream and oldest first, because the process is gone."""
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
        """End the process. Decoded frames in use keep their memory."""
        self.group.close()
        os.close(self._decoded_fd)

    def _request(self, request: VideoRequest) -> bool:
        if self.group.closed:
            return True  # the process is gone, so nothing needs to be sent
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
                    # A compromised process may state any time, but it cannot have worked longer than it had
                    # the frame.
                    reader.was_read(min(answer.cpu_us / 1e6, time.monotonic() - read.sent_at))
            self._forget_hidden(answer)
            return
        decoded = self._map_frame(answer) if answer.kind is Answer.DECODED else None
        stream, frame = self._frames.get(answer.number, (-1, None))
        if frame is None or stream != answer.stream:
            return
        del self._frames[answer.number]
        taker = self.streams.get(stream)
        if taker is not None:
            taker.answered(frame, answer, decoded)

    def _forget_hidden(self, answer: VideoAnswer) -> None:
        """Give up frames that were read long ago: decoders do not output every frame."""
        oldest = answer.number - _MAX_HIDDEN
        while self._frames and next(iter(self._frames)) < oldest:
            del self._frames[next(iter(self._frames))]

    def _map_frame(self, answer: VideoAnswer) -> SharedFrame:
        memory = self._decoded_memory[answer.offset : answer.offset + answer.nbytes]
        release = partial(self._dropped.append, answer.offset)
        return SharedFrame(answer.width, answer.height, answer.layout, memory, release)


class SharedFrame:
    """Holds a decoded frame in memory shared with its decoder process, and converts its pixels on demand.

    ``release`` is called when the frame is garbage-collected, in any thread.
    """

    def __init__(
        self, width: int, height: int, layout: Layout, memory: Image, release: Callable[[], None]
    ) -> None:
        self.width = width
        self.height = height
        self._layout = layout
        self._memory = memory
        self._release = release
        #: Width and height as stored, and how the pixels become upright.
        self._stored = width, height
        self._turning = NO_TURNING

    def turn(self, turning: Turning) -> None:
        """Set how its stored pixels become upright."""
        self._turning = turning
        self.width, self.height = self._stored[:: -1 if turning.turns % 2 else 1]

    def __del__(self) -> None:
        self._release()

    @property
    def nbytes(self) -> int:
        """Size of its pixels in bytes."""
        return 3 * self.width * self.height

    def pixels(self) -> Image:
        """Return its upright pixels as uint8 BGR (height, width, 3), in newly allocated memory."""
        width, height = self._stored
        if self._layout is Layout.BGR:
            return self._turning.upright(self._memory.reshape(height, width, 3).copy())
        planes = self._memory.reshape(height * 3 // 2, width)
        converted: Image = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        return self._turning.upright(converted)

    def grey(self) -> Image:
        """Return its upright pixels as uint8 grey (height, width), contiguous."""
        width, height = self._stored
        if self._layout is Layout.BGR:
            grey: Image = cv2.cvtColor(self._memory.reshape(height, width, 3), cv2.COLOR_BGR2GRAY)
        else:  # the first plane of I420 is the brightness
            grey = self._memory[: height * width].reshape(height, width)
        return np.ascontiguousarray(self._turning.upright(grey))
