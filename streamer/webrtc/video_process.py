"""Decodes video streams of one worker in a process with a sandbox.

Run as a module, this file is the fork server that starts such processes. Unlike image decoders, each process
has its own socket, because all frames of a stream must reach the same decoder.
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

from streamer.decoding.decoder import ready_answer
from streamer.decoding.decoder_group import ArenaFull, PageAllocator
from streamer.decoding.decoder_status import DecoderStatus
from streamer.decoding.fork_server import serve
from streamer.decoding.messages import pack_answer as pack_ready
from streamer.decoding.sandbox import CpuLimit, enter_sandbox
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.depacketizer import BadVideo, read_video_header
from streamer.webrtc.video_messages import (
    MAX_MESSAGE_BYTES,
    Answer,
    Layout,
    Request,
    VideoAnswer,
    VideoRequest,
    decoded_bytes,
    pack_answer,
    unpack_request,
)

#: Every frame of a video is decoded, needed or not, so decoders yield to the rest of the service: beside a
#: model run on the same core a decoder gets a quarter of it. The value comes from `make bench BENCH=fairness`
#: (decision 0059).
NICENESS = 5
#: The largest processor time in microseconds that fits in an answer.
_MOST_US = 2**32 - 1
#: Most frames that the decoder may hold back; B-frames of real encoders need four.
_MAX_IN_DECODER = 32
_DECODERS = {Codec.VP8: "libvpx", Codec.H264: "h264"}
#: Accepted pixel formats: 8 bits, 4:2:0. Others come from profiles that were not negotiated.
_FORMATS = {"yuv420p", "yuvj420p"}


@dataclass(frozen=True, slots=True)
class FrameOutcome:
    """The outcome of one frame: the decoded frame, or the reason why there is none."""

    number: int
    decoded: av.VideoFrame | None
    reason: DropReason = DropReason.DECODE_ERROR
    #: What is wrong with the video, for people; empty if the reason is enough.
    text: str = ""


class VideoContext:
    """Decodes the frames of one stream, which it takes in order."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._context = _open(codec)
        #: Numbers of frames that the decoder still holds, oldest first.
        self._inside: OrderedDict[int, None] = OrderedDict()
        #: Whether frames are dropped until a key frame arrives, because they refer to missing frames.
        self._wants_key = True

    def decode(self, number: int, data: bytes, *, after_gap: bool) -> list[FrameOutcome]:
        """Decode one frame; returns the outcomes that are known now, of this frame and of earlier ones."""
        self._wants_key = self._wants_key or after_gap
        try:
            header = read_video_header(self._codec, data)
        except BadVideo as error:
            return [self._broken(number, str(error))]
        if self._wants_key and not header.key:
            return [FrameOutcome(number, None, DropReason.NO_KEYFRAME)]
        if self._wants_key:
            # Drop the frames that the decoder still holds, because they are from before the gap.
            self._context = _open(self._codec)
            self._inside.clear()
            self._wants_key = False
        self._inside[number] = None
        packet = av.Packet(data)
        packet.pts = number
        try:
            frames = self._context.decode(packet)
        except (av.FFmpegError, MemoryError) as error:
            self._inside.pop(number, None)
            return [self._broken(number, f"the video is damaged: {_reason(error)}")]
        return [outcome for decoded in frames if (outcome := self._answer(decoded, number)) is not None]

    def _answer(self, decoded: av.VideoFrame, latest: int) -> FrameOutcome | None:
        """Return the outcome of the frame that ``decoded`` belongs to."""
        number = decoded.pts if decoded.pts is not None else latest
        known = self._inside.pop(number, 0) is None
        while len(self._inside) > _MAX_IN_DECODER:  # these frames are never output
            self._inside.popitem(last=False)
        if not known:
            return None
        if decoded.is_corrupt:
            return self._broken(number, "the video is damaged: a frame lacks parts")
        if decoded.format.name not in _FORMATS:
            name = decoded.format.name
            return self._broken(number, f"pixel format {name} was not agreed; 8 bits, 4:2:0 is")
        return FrameOutcome(number, decoded)

    def _broken(self, number: int, text: str) -> FrameOutcome:
        self._wants_key = True
        return FrameOutcome(number, None, DropReason.DECODE_ERROR, text)


def layout_of(decoded: av.VideoFrame) -> Layout:
    """Return the layout for shared memory: planes if OpenCV can convert them quickly."""
    even = decoded.width % 2 == 0 and decoded.height % 2 == 0
    # Full-range video (yuvj420p) is converted here, because OpenCV assumes limited range.
    return Layout.I420 if even and decoded.format.name == "yuv420p" else Layout.BGR


def write_pixels(decoded: av.VideoFrame, layout: Layout, target: npt.NDArray[np.uint8]) -> None:
    """Copy the pixels into ``target``, a flat array of `video_messages.decoded_bytes`."""
    if layout is Layout.BGR:
        # The sandbox allows only one thread.
        target[:] = decoded.reformat(format="bgr24", threads=1).to_ndarray().reshape(-1)
        return
    at = 0
    for plane in decoded.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        size = plane.width * plane.height
        target[at : at + size].reshape(plane.height, plane.width)[:] = rows
        at += size


def _open(codec: Codec) -> av.VideoCodecContext:
    context = av.CodecContext.create(_DECODERS[codec], "r")
    if not isinstance(context, av.VideoCodecContext):
        raise TypeError(f"{_DECODERS[codec]} is no video decoder here")
    # The sandbox allows only one thread, and with several threads frames come out late.
    context.thread_count = 1
    with contextlib.suppress(AttributeError):
        context.flags |= Flags.low_delay
    return context


def _reason(error: Exception) -> str:
    return str(error).partition("]")[2].strip()[:100] or type(error).__name__


class VideoProcess:
    """Serves one worker until the worker closes the socket."""

    def __init__(
        self, channel: socket.socket, arena: mmap.mmap, decoded: mmap.mmap, page: DecoderStatus
    ) -> None:
        self._channel = channel
        self._input = memoryview(arena)
        self._decoded_memory = np.frombuffer(decoded, np.uint8)
        self._pages = PageAllocator(len(decoded))
        #: Length of each decoded frame that the worker still uses, by offset.
        self._lent: dict[int, int] = {}
        self._page = page
        self._cpu_limit = CpuLimit()
        self._contexts: dict[int, VideoContext] = {}

    def run(self) -> None:
        """Serve requests until the worker is gone."""
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
        # The frame is copied, because FFmpeg reads past its end, where other frames are.
        data = bytes(self._input[request.offset : request.offset + request.length])
        for outcome in context.decode(request.number, data, after_gap=request.fresh):
            self._send(self._answer(request.stream, outcome))
        cpu_us = min(_MOST_US, round((time.thread_time() - begun_s) * 1e6))
        self._send(VideoAnswer(Answer.READ, request.stream, request.number, cpu_us=cpu_us))
        self._page.write(0, 0, 0.0, 0.0)

    def _answer(self, stream: int, outcome: FrameOutcome) -> VideoAnswer:
        number, decoded = outcome.number, outcome.decoded
        if decoded is None:
            return VideoAnswer(Answer.NOT_DECODED, stream, number, reason=outcome.reason, text=outcome.text)
        layout = layout_of(decoded)
        length = decoded_bytes(decoded.width, decoded.height, layout)
        try:
            offset = self._pages.take(length)
        except ArenaFull:
            return VideoAnswer(Answer.NOT_DECODED, stream, number, reason=DropReason.OVERLOAD)
        write_pixels(decoded, layout, self._decoded_memory[offset : offset + length])
        self._lent[offset] = length
        return VideoAnswer(Answer.DECODED, stream, number, offset, decoded.width, decoded.height, layout)

    def _send(self, answer: VideoAnswer) -> None:
        self._channel.send(pack_answer(answer))


def _warm_up() -> None:
    """Use each decoder and the converter once, because on first use they load what the sandbox denies."""
    for codec in (Codec.VP8, Codec.H264):
        VideoContext(codec)
    frame = av.VideoFrame.from_ndarray(np.zeros((24, 16), np.uint8), format="yuv420p")
    write_pixels(frame, Layout.BGR, np.empty(16 * 16 * 3, np.uint8))


def run(request: Mapping[str, Any], descriptors: list[int]) -> None:
    """Run a video decoder in a new process.

    ``descriptors`` are those of the channel, the input, the status page and the decoded frames.
    """
    channel_fd, arena_fd, page_fd, decoded_fd = descriptors
    channel = socket.socket(fileno=channel_fd)
    arena = mmap.mmap(arena_fd, 0, prot=mmap.PROT_READ)
    process = VideoProcess(channel, arena, mmap.mmap(decoded_fd, 0), DecoderStatus(page_fd))
    _warm_up()
    os.nice(NICENESS)
    sandbox = enter_sandbox(request["memory_bytes"])
    channel.send(pack_ready(ready_answer(request["key"], sandbox)))
    process.run()


if __name__ == "__main__":
    sys.exit(serve(run))
