"""Makes the animated image at the top of the README: the sample clip with the boxes that the service finds.

Run ``make demo-gif``, or ``python -m data.make_demo [FILE]``. The service runs with the bundled models.
Every second frame of the clip is sent to it, and the client library draws the results.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from streamer.client import DetectStreamSync, Result, VideoSource
from streamer.client.encoder import Pixels
from tests.helpers.service import ROOT, Service

OUTPUT = ROOT / "docs" / "images" / "demo.webp"
#: Frames per second: half the rate of the clip, so that the file is small and the loop has no jump.
FPS = 10
#: Maximum size of the file, because every visitor of the README loads it.
MOST_BYTES = 1_500_000
#: libwebp's quality, 0..100.
QUALITY = 60


def drawn_frames(url: str) -> list[Pixels]:
    """Return the frames of the sample clip with their boxes. Raises RuntimeError if a frame has no result."""
    with DetectStreamSync(url, mode="all", params={"conf_threshold": 0.5}) as stream:
        for frame in list(VideoSource("sample"))[::2]:
            stream.send(frame.pixels(), tag=frame.pixels())
        stream.finish()
        frames = [outcome.draw(outcome.tag) for outcome in stream if isinstance(outcome, Result)]
    if stream.ledger.results < stream.ledger.offered:
        raise RuntimeError(f"not every frame has a result: {stream.ledger.to_json()}")
    return frames


def write_webp(path: Path, frames: list[Pixels]) -> None:
    """Write an animated WebP file that loops for ever."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", format="webp", options={"loop": "0"}) as container:
        stream = container.add_stream("libwebp_anim", rate=FPS, options={"quality": str(QUALITY)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main() -> int:
    """Write the file; return 1 if it is too large for the README."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
    with Service({"SAMPLING": "0", "STREAM_MIN_FPS": "0"}, bundled=True) as service:
        frames = drawn_frames(service.ws_url)
    write_webp(path, frames)
    size = path.stat().st_size
    sys.stdout.write(f"{path}: {len(frames)} frames, {size} bytes\n")
    return int(size > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
