"""The video decoder process: decodes the streams that a worker gives it, always sandboxed.

Run as a module it is the fork server that starts them. Unlike image decoders each has a socket of its own,
because a stream's frames must reach the decoder that has seen the ones before.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

import av
import numpy as np

from streamer.decoding.arena import ArenaFull, PageAllocator
from streamer.decoding.decoder import ready_answer
from streamer.decoding.fork_server import serve
from streamer.decoding.messages import pack_answer as pack_ready
from streamer.decoding.sandbox import CpuLimit, enter_sandbox
from streamer.decoding.shared_status import StatusPage
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.video_context import FrameOutcome, VideoContext, layout_of, write_picture
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
