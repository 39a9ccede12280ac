"""The video decoder process: decodes the streams that a worker gives it, always sandboxed.

Run as a module it is the fork server that starts them. Unlike image decoders each has a socket of its own,
because a stream's frames must reach the decoder that has seen the ones before.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags

from streamer.decoding.arena import ArenaFull, PageAllocator
from streamer.decoding.decoder import ready_answer
from streamer.decoding.fork_server import serve
from streamer.decoding.messages import pack_answer as pack_ready
from streamer.decoding.sandbox import CpuLimit, enter_sandbox
from streamer.decoding.shared_status import StatusPage
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.video_header import BadVideo, read_video_header
from streamer.webrtc.video_messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Layout,
    Request,
    VideoAnswer,
    VideoRequest,
    pack_answer,
    picture_bytes,
    unpack_request,
)

#: Every frame of a video is decoded, wanted or not, so decoders yield to the rest of the service: beside a
#: model run on the same core one has a quarter of it. `make bench BENCH=fairness` chose it (decision 0059).
NICENESS = 5
#: The largest number that a message holds.
_MOST_US = 2**32 - 1
#: Frames inside the decoder whose pictures have not come out; B-frames of real encoders need four.
_MAX_INSIDE = 32
_DECODERS = {Codec.VP8: "libvpx", Codec.H264: "h264"}
#: Frames without any chroma or depth surprise; what else a decoder makes is a profile nobody agreed to.
_FORMATS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True, slots=True)
class FrameOutcome:
    """What became of the frame of that number: a picture, or the reason why there is none."""

    number: int
    picture: av.VideoFrame | None
    reason: DropReason = DropReason.DECODE_ERROR
    #: What is wrong with the video, for people; empty where the reason says it all.
    text: str = ""


class VideoContext:
    """Give it the frames of a stream in order."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._context = _open(codec)
        #: Numbers of frames that the decoder has taken and not answered, oldest first.
        self._inside: OrderedDict[int, None] = OrderedDict()
        #: Until a key frame comes, everything refers to pictures that are not there.
        self._wants_key = True

    def decode(self, number: int, data: bytes, *, after_gap: bool) -> list[FrameOutcome]:
        """Decode one frame; returns the outcomes of this one and of earlier ones that have come out now."""
        self._wants_key = self._wants_key or after_gap
        try:
            header = read_video_header(self._codec, data)
        except BadVideo as error:
            return [self._broken(number, str(error))]
        if self._wants_key and not header.key:
            return [FrameOutcome(number, None, DropReason.NO_KEYFRAME)]
        if self._wants_key:
            # What is left inside belongs to the time before the gap.
            self._context = _open(self._codec)
            self._inside.clear()
            self._wants_key = False
        self._inside[number] = None
        packet = av.Packet(data)
        packet.pts = number
        try:
            pictures = self._context.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self._inside.pop(number, None)
            return [self._broken(number, f"the video is damaged: {_reason(error)}")]
        return [outcome for picture in pictures if (outcome := self._answer(picture, number)) is not None]

    def _answer(self, picture: av.VideoFrame, latest: int) -> FrameOutcome | None:
        """Return the outcome of the frame that ``picture`` belongs to."""
        number = picture.pts if picture.pts is not None else latest
        known = self._inside.pop(number, 0) is None
        while len(self._inside) > _MAX_INSIDE:  # frames that are never shown
            self._inside.popitem(last=False)
        if not known:
            return None
        if picture.is_corrupt:
            return self._broken(number, "the video is damaged: a picture lacks parts")
        if picture.format.name not in _FORMATS:
            name = picture.format.name
            return self._broken(number, f"pixel format {name} was not agreed; 8 bits, 4:2:0 is")
        return FrameOutcome(number, picture)

    def _broken(self, number: int, text: str) -> FrameOutcome:
        self._wants_key = True
        return FrameOutcome(number, None, DropReason.DECODE_ERROR, text)


def layout_of(picture: av.VideoFrame) -> Layout:
    """Return how the pixels are to lie in shared memory: planes where OpenCV converts them quickly."""
    even = picture.width % 2 == 0 and picture.height % 2 == 0
    # Full-range video (yuvj420p) is converted here, because OpenCV takes all planes for limited range.
    return Layout.I420 if even and picture.format.name == "yuv420p" else Layout.BGR


def write_picture(picture: av.VideoFrame, layout: Layout, target: npt.NDArray[np.uint8]) -> None:
    """Copy the pixels into ``target``, a flat array of `video_messages.picture_bytes`."""
    if layout is Layout.BGR:
        # One thread: the sandbox allows no others.
        target[:] = picture.reformat(format="bgr24", threads=1).to_ndarray().reshape(-1)
        return
    at = 0
    for plane in picture.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        size = plane.width * plane.height
        target[at : at + size].reshape(plane.height, plane.width)[:] = rows
        at += size


def _open(codec: Codec) -> av.VideoCodecContext:
    context = av.CodecContext.create(_DECODERS[codec], "r")
    if not isinstance(context, av.VideoCodecContext):
        raise TypeError(f"{_DECODERS[codec]} is no video decoder here")
    # The sandbox allows no threads, and frames of several threads come out late.
    context.thread_count = 1
    with contextlib.suppress(AttributeError):
        context.flags |= Flags.low_delay
    return context


def _reason(error: Exception) -> str:
    return str(error).partition("]")[2].strip()[:100] or type(error).__name__


class VideoProcess:
    """Serves one worker until the socket is closed."""

    def __init__(
        self, channel: socket.socket, arena: mmap.mmap, pictures: mmap.mmap, page: StatusPage
    ) -> None:
        self._channel = channel
        self._input = memoryview(arena)
        self._pictures = np.frombuffer(pictures, np.uint8)
        self._pages = PageAllocator(len(pictures))
        #: Lengths of pictures that the worker still uses, by offset.
        self._lent: dict[int, int] = {}
        self._page = page
        self._cpu_limit = CpuLimit()
        self._contexts: dict[int, VideoContext] = {}

    def run(self) -> None:
        """Work until the worker is gone."""
        while data := self._channel.recv(MAX_MESSAGE_BYTES):
            request = unpack_request(data)
            if request.kind is Request.FRAME:
                self._decode(request)
            elif request.kind is Request.RELEASE:
                length = self._lent.pop(request.offset, 0)
                if length:
                    self._pages.give_back(request.offset, length)
            else:
                self._contexts.pop(request.stream, None)

    def _decode(self, request: VideoRequest) -> None:
        begun_s = time.thread_time()
        self._cpu_limit.renew(begun_s)
        self._page.write(0, request.number, time.monotonic(), begun_s)
        context = self._contexts.get(request.stream)
        if context is None:
            context = self._contexts[request.stream] = VideoContext(request.codec)
        # A copy: FFmpeg reads some bytes past the end, which belong to others here.
        data = bytes(self._input[request.offset : request.offset + request.length])
        for outcome in context.decode(request.number, data, after_gap=request.fresh):
            self._send(self._answer(request.stream, outcome))
        cpu_us = min(_MOST_US, round((time.thread_time() - begun_s) * 1e6))
        self._send(VideoAnswer(Answer.READ, request.stream, request.number, cpu_us=cpu_us))
        self._page.write(0, 0, 0.0, 0.0)

    def _answer(self, stream: int, outcome: FrameOutcome) -> VideoAnswer:
        number, picture = outcome.number, outcome.picture
        if picture is None:
            return VideoAnswer(Answer.NO_PICTURE, stream, number, reason=outcome.reason, text=outcome.text)
        layout = layout_of(picture)
        length = picture_bytes(picture.width, picture.height, layout)
        try:
            offset = self._pages.take(length)
        except ArenaFull:
            return VideoAnswer(Answer.NO_PICTURE, stream, number, reason=DropReason.OVERLOAD)
        write_picture(picture, layout, self._pictures[offset : offset + length])
        self._lent[offset] = length
        return VideoAnswer(Answer.PICTURE, stream, number, offset, picture.width, picture.height, layout)

    def _send(self, answer: VideoAnswer) -> None:
        self._channel.send(pack_answer(answer))


def _warm_up() -> None:
    """Use each decoder and the converter once: what they load on first use must come before the sandbox."""
    for codec in (Codec.VP8, Codec.H264):
        VideoContext(codec)
    frame = av.VideoFrame.from_ndarray(np.zeros((24, 16), np.uint8), format="yuv420p")
    write_picture(frame, Layout.BGR, np.empty(16 * 16 * 3, np.uint8))


def run(request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Be a video decoder, in a fresh fork: takes over channel, input, status page and memory of pictures."""
    channel_fd, arena_fd, page_fd, pictures_fd = descriptors
    channel = socket.socket(fileno=channel_fd)
    arena = mmap.mmap(arena_fd, 0, prot=mmap.PROT_READ)
    process = VideoProcess(channel, arena, mmap.mmap(pictures_fd, 0), StatusPage(page_fd))
    _warm_up()
    os.nice(NICENESS)
    sandbox = enter_sandbox(request["memory_bytes"])
    channel.send(pack_ready(ready_answer(request["key"], sandbox)))
    process.run()


if __name__ == "__main__":
    sys.exit(serve(run))
