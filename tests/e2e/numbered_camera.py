"""Makes a camera whose images carry their number in a strip below the scene, and the script that reads it."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from tests.e2e.browser import Image, write_camera

#: Images per second at which Chromium shows a Motion JPEG file.
CAMERA_FPS = 30
#: Width and height of the scene, and height of the strip below it, in pixels.
WIDTH, HEIGHT, STRIP = 640, 360, 40
BITS = 9
#: Width of a bit in the strip, in pixels. The strip holds all bits and then their inverses, so that the
#: script can reject a strip that it misreads.
_CELL = WIDTH // (2 * BITS)

#: Records, from its call on, every image that the overlay shows: its number, its boxes in pixels of the
#: camera, and the time from its capture until it is shown, in milliseconds. The capture time is the one that
#: the video element reports.
RECORD = f"""
() => {{
  const video = document.getElementById('video');
  const canvas = document.getElementById('overlay');
  const look = Object.assign(document.createElement('canvas'), {{width: {WIDTH}, height: 1}});
  const context = look.getContext('2d', {{willReadFrequently: true}});
  // Draws the line through the middle of the strip, and reads it.
  const read = (image, left, top, width, height, mirror) => {{
    context.setTransform(mirror ? -1 : 1, 0, 0, 1, mirror ? {WIDTH} : 0, 0);
    const y = top + height * {(HEIGHT + STRIP / 2) / (HEIGHT + STRIP)};
    context.drawImage(image, left, y, width, 1, 0, 0, {WIDTH}, 1);
    const row = context.getImageData(0, 0, {WIDTH}, 1).data;
    const bit = (n) => row[4 * Math.floor((n + 0.5) * {_CELL})] > 127;
    let number = 0;
    for (let n = 0; n < {BITS}; n += 1) {{
      if (bit(n) === bit(n + {BITS})) return null;
      number = 2 * number + bit(n);
    }}
    return number;
  }};
  const record = window.record = {{shown: [], captured: {{}}, unread: 0}};
  const camera = (nowMs, metadata) => {{
    const number = read(video, 0, 0, video.videoWidth, video.videoHeight, false);
    if (number !== null) record.captured[number] = metadata.captureTime ?? nowMs;
    video.requestVideoFrameCallback(camera);
  }};
  video.requestVideoFrameCallback(camera);
  let seq = demo.drawn?.seq;
  const look_again = () => {{
    requestAnimationFrame(look_again);
    const drawn = demo.drawn;
    if (!drawn || drawn.seq === seq) return;
    seq = drawn.seq;
    const {{left, top, width, height, mirror}} = drawn.placement;
    const number = read(canvas, left, top, width, height, mirror);
    if (number === null) {{
      record.unread += 1;
      return;
    }}
    const scale = {WIDTH} / drawn.frame.width;
    record.shown.push({{
      number,
      boxes: drawn.boxes.map((row) => [...row.slice(0, 4).map((value) => value * scale), row[4], row[5]]),
      afterMs: record.captured[number] === undefined ? null : performance.now() - record.captured[number],
    }});
  }};
  look_again();
}}
"""


def numbered(scene: Image, number: int) -> Image:
    """Return an image of the camera: the scene with the number in a strip below it."""
    strip = np.full((STRIP, WIDTH, 3), 127, np.uint8)
    bits = [number >> (BITS - 1 - n) & 1 for n in range(BITS)]
    for n, bit in enumerate([*bits, *(1 - bit for bit in bits)]):
        strip[:, n * _CELL : (n + 1) * _CELL] = 255 * bit
    return np.vstack([scene, strip])


def film(video: Path, begin_s: float, seconds: float) -> list[Image]:
    """Return the camera's images: a part of a video at its original speed, each image with its number."""
    images: list[Image] = []
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            while frame.time is not None and frame.time >= begin_s + len(images) / CAMERA_FPS:
                scene = cv2.resize(frame.to_ndarray(format="bgr24"), (WIDTH, HEIGHT))
                images.append(numbered(np.asarray(scene, np.uint8), len(images)))
            if len(images) >= min(seconds * CAMERA_FPS, 1 << BITS):
                break
    return images


def write_film(path: Path, images: list[Image]) -> Path:
    """Write the images as a file for Chromium's fake camera."""
    return write_camera(path, images)
