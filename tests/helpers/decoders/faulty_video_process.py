"""A fork server whose video decoders fail on videos of certain widths.

It replaces `VideoContext` of `streamer.webrtc.video_process`; everything else is the production code.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

from streamer.decoding import fork_server
from streamer.protocol.wire import Codec
from streamer.webrtc import video_process
from streamer.webrtc.depacketizer import BadVideo, read_video_header
from streamer.webrtc.video_process import FrameOutcome, VideoContext

#: Video widths in pixels that trigger each fault.
SEGFAULT, HANG = 202, 204


class FaultyContext(VideoContext):
    """Crashes or never returns for certain widths."""

    def decode(self, number: int, data: bytes, *, after_gap: bool) -> list[FrameOutcome]:
        """Trigger the fault if a key frame has one of the widths."""
        width = 0
        with contextlib.suppress(BadVideo):
            width = read_video_header(Codec.VP8, data).width
        if width == SEGFAULT:
            ctypes.string_at(1)
        while width == HANG:
            pass
        return super().decode(number, data, after_gap=after_gap)


video_process.VideoContext = FaultyContext  # type: ignore[misc]

if __name__ == "__main__":
    sys.exit(fork_server.serve(video_process.run))
