"""Serves a page on this machine that shows the newest frame with its boxes, for `push --show`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import webbrowser
from collections.abc import Callable

from aiohttp import web

from streamer.client.capture import Captured
from streamer.client.detections import Detections
from streamer.client.encoder import encode_jpeg
from streamer.client.errors import BadInput
from streamer.client.frame_stream import Notifier
from streamer.imaging.draw import draw_on_copy

_BOUNDARY = "frame"
_QUALITY = 80
#: Frames without boxes are shown when there were no results for this long.
NO_BOXES_AFTER_S = 1.0
_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>streamer push</title>
<style>
  :root { color-scheme: dark; }
  body { margin: 0; height: 100vh; display: flex; flex-direction: column; background: #14161a; color: #e4e7ec;
         font: 14px/1.5 system-ui, sans-serif; }
  img { flex: 1; min-height: 0; width: 100%; object-fit: contain; }
  p { margin: 0; padding: .6rem 1rem; background: #1e2127; font-variant-numeric: tabular-nums; }
</style>
<img src="frames" alt="The newest frame with its boxes">
<p id="status" role="status">waiting for the first frame</p>
<script>
  const status = document.getElementById("status");
  const ask = async () => {
    try {
      status.textContent = await (await fetch("status")).text();
    } catch {
      status.textContent = "streamer push has ended";
      return;
    }
    setTimeout(ask, 500);
  };
  ask();
</script>
</html>
"""


class Preview:
    """Serves one page at an address that cannot be guessed. ``status`` returns the text below the frame."""

    def __init__(self, status: Callable[[], str]) -> None:
        self._status = status
        self._notifier = Notifier()
        #: The newest frame and its boxes; ``_count`` is its number.
        self._newest: tuple[Captured, Detections | None] | None = None
        self._count = 0
        self._encoded: tuple[int, bytes] = (0, b"")
        self._last_boxes_s = float("-inf")
        self._closing = False
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        """Listen on a free port of the loopback interface."""
        key = secrets.token_urlsafe(12)
        app = web.Application()
        app.router.add_get(f"/{key}/", self._page)
        app.router.add_get(f"/{key}/frames", self._frames)
        app.router.add_get(f"/{key}/status", self._status_text)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/{key}/"

    def open_browser(self) -> None:
        """Open the page in a browser if there is a display."""
        if (
            sys.platform in ("darwin", "win32")
            or os.environ.get("DISPLAY")
            or os.environ.get("WAYLAND_DISPLAY")
        ):
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(self.url)

    def show(self, frame: Captured, detections: Detections | None) -> None:
        """Show a frame. Skip one without a result, unless there were no results for `NO_BOXES_AFTER_S`."""
        if detections is not None:
            self._last_boxes_s = frame.time_s
        elif frame.time_s - self._last_boxes_s < NO_BOXES_AFTER_S:
            return
        self._newest = (frame, detections)
        self._count += 1
        self._notifier.notify()

    async def close(self) -> None:
        """End the responses to all viewers, and stop listening."""
        self._closing = True
        self._notifier.notify()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(
            text=_PAGE,
            content_type="text/html",
            headers={"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )

    async def _status_text(self, _: web.Request) -> web.Response:
        return web.Response(text=self._status(), headers={"Cache-Control": "no-store"})

    async def _frames(self, request: web.Request) -> web.StreamResponse:
        """Send each new frame as JPEG. A slow viewer skips frames."""
        response = web.StreamResponse(
            headers={
                "Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}",
                "Cache-Control": "no-store",
            }
        )
        await response.prepare(request)
        seen = 0
        with contextlib.suppress(ConnectionError):
            while not self._closing:
                if self._count == seen:
                    await self._notifier.wait()
                    continue
                seen, jpeg = await self._jpeg()
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                await response.write(head.encode() + jpeg + b"\r\n")
        return response

    async def _jpeg(self) -> tuple[int, bytes]:
        """Return the newest frame as JPEG, encoded once for all viewers, and its number."""
        count, newest = self._count, self._newest
        if self._encoded[0] != count and newest is not None:
            self._encoded = (count, await asyncio.to_thread(_encode, *newest))
        return self._encoded


def _encode(frame: Captured, detections: Detections | None) -> bytes:
    try:
        image = frame.pixels()
    except BadInput:
        return b""
    return encode_jpeg(image if detections is None else draw_on_copy(image, detections), _QUALITY)
