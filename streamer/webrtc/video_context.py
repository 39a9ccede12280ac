"""The native decoder of one stream: pictures of whole frames only. Runs in a video decoder process."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from dataclasses import dataclass

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags

from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.video_header import BadVideo, read_video_header
from streamer.webrtc.video_messages import Layout

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
