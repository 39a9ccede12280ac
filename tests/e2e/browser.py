"""Runs the demo page in a real Chromium with a fake camera or a file, and records what the page does."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request, WebSocket
from playwright.sync_api import Error as PlaywrightError

from streamer.protocol.wire import Frame, unpack_frame

Image = npt.NDArray[np.uint8]

WAIT_S = 60.0
_ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
#: Records violations of the page's content security policy. It runs before the page's own scripts; the test
#: reads the list at its end.
_LISTEN_FOR_VIOLATIONS = """
window.violations = [];
document.addEventListener('securitypolicyviolation', (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@contextmanager
def chromium(
    playwright: Playwright, *arguments: str, camera: Path | None = None, allow: bool = True
) -> Iterator[Browser]:
    """Start a Chromium whose camera shows the Motion JPEG file ``camera``, or one that has no camera.

    With ``allow``, Chromium grants the page the camera without asking.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium, which is not installed")
    args = [*_ARGUMENTS, *arguments]
    if camera is not None:
        args += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={camera}"]
        if allow:
            args.append("--use-fake-ui-for-media-stream")
    browser = playwright.chromium.launch(
        executable_path=path, headless=True, chromium_sandbox=False, args=args
    )
    try:
        yield browser
    finally:
        browser.close()


class DemoPage:
    """Drives one tab with the demo page and keeps its messages, frames, requested hosts and errors."""

    def __init__(self, browser: Browser, base_url: str, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 800}} | options
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(WAIT_S * 1e3)
        self.page: Page = self.context.new_page()
        self.page.add_init_script(_LISTEN_FOR_VIOLATIONS)
        self.base_url = base_url
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        #: Addresses of the WebSockets opened, in order.
        self.sockets: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.frames: list[Frame] = []
        self.received: list[dict[str, Any]] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._request)
        self.page.on("websocket", self._socket)

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium warns about `willReadFrequently` because the tests, not the page, read the canvas often.
        if message.type in ("error", "warning") and "willReadFrequently" not in message.text:
            self.errors.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("blob:", "data:")):
            self.hosts.add(urlsplit(request.url).netloc)

    def _socket(self, socket: WebSocket) -> None:
        self.sockets.append(socket.url)
        self.hosts.add(urlsplit(socket.url).netloc)
        socket.on("framesent", self._frame_sent)
        socket.on("framereceived", lambda data: self.received.append(json.loads(data)))

    def _frame_sent(self, data: str | bytes) -> None:
        if isinstance(data, str):
            self.sent.append(json.loads(data))
        else:
            self.frames.append(unpack_frame(data))

    # -- driving ---------------------------------------------------------------------------------

    def open(self, query: str = "") -> None:
        """Load the page and wait until it knows the server's models."""
        self.page.goto(f"{self.base_url}/{query}")
        self.wait("document.getElementById('model-hint').textContent !== ''")

    def start(self, source: str) -> None:
        """Press the start button of a source: ``camera`` or ``sample``."""
        self.page.click(f".start [data-source={source}]")

    def start_file(self, path: Path) -> None:
        """Choose a video file as the source."""
        self.page.set_input_files("#file", path)

    def evaluate(self, expression: str, argument: Any = None) -> Any:
        """Evaluate JavaScript in the page."""
        return self.page.evaluate(expression, argument)

    def wait(self, condition: str | Callable[[], Any], timeout_s: float = WAIT_S) -> None:
        """Wait until a JavaScript expression, or a Python function, is true.

        Polls from outside the page, because its content security policy forbids evaluating strings inside. A
        condition that raises is not true yet: an element or a result that it reads may come later, or be
        replaced.
        """
        deadline = time.monotonic() + timeout_s
        failed: Exception | None = None
        while time.monotonic() < deadline:
            try:
                if self.evaluate(f"Boolean({condition})") if isinstance(condition, str) else condition():
                    return
                failed = None
            except (PlaywrightError, TypeError) as error:
                failed = error
            self.page.wait_for_timeout(50)
        state = self.evaluate(
            "JSON.stringify([demo.connection, demo.flow, demo.counts, demo.error, demo.latest])"
        )
        raise AssertionError(
            f"never true: {condition}; page: {state}; errors: {self.errors}; last failure: {failed}"
        )

    def wait_text(self, selector: str, text: str) -> None:
        """Wait until an element is visible and contains a text, ignoring case."""
        self.page.locator(selector).filter(has_text=text).wait_for()

    def wait_visible(self, selector: str) -> None:
        """Wait until an element is visible."""
        self.page.locator(selector).wait_for()

    def wait_hidden(self, selector: str) -> None:
        """Wait until an element is not visible."""
        self.page.locator(selector).wait_for(state="hidden")

    def wait_value(self, expression: str, expected: Any) -> None:
        """Wait until a JavaScript expression has a value; on failure, show the last one."""
        last: list[Any] = [None]

        def reached() -> bool:
            last[0] = self.evaluate(expression)
            return bool(last[0] == expected)

        try:
            self.wait(reached)
        except AssertionError as error:
            raise AssertionError(f"{expression} is {last[0]!r}, never {expected!r}") from error

    def wait_for_results(self, count: int = 1) -> None:
        """Wait until the page has received ``count`` more results.

        This says nothing about texts and states that the page updates later: wait for these themselves.
        """
        before = self.evaluate("demo.counts.results")
        self.wait(f"demo.counts.results >= {before + count}")

    def wait_sent(self, kind: str, count: int = 1) -> None:
        """Wait until the page has sent ``count`` control messages of a type."""
        self.wait(lambda: sum(message["type"] == kind for message in self.sent) >= count)

    @property
    def latest(self) -> dict[str, Any]:
        """The newest result."""
        latest: dict[str, Any] = self.evaluate("demo.latest")
        return latest

    # -- ends ------------------------------------------------------------------------------------

    def assert_clean(self, *, but: tuple[str, ...] = ()) -> None:
        """Assert that there was no error, no policy violation and no request to another host.

        Errors that contain one of the texts in ``but`` are expected.
        """
        errors = [error for error in self.errors if not any(text in error for text in but)]
        assert errors == [], errors
        assert not (violations := self.evaluate("window.violations")), violations
        assert self.hosts == {urlsplit(self.base_url).netloc}, self.hosts

    def close(self) -> None:
        """Close the tab."""
        self.context.close()


# -- media -------------------------------------------------------------------------------------------


def write_camera(path: Path, images: Iterable[Image]) -> Path:
    """Write a Motion JPEG file that Chromium's fake camera shows in a loop at 30 images per second."""
    with path.open("wb") as file:
        for image in images:
            file.write(bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1]))
    return path


def write_clip(path: Path, images: Iterable[Image], fps: int = 30) -> Path:
    """Write an H.264 file."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "18"}
        for index, image in enumerate(images):
            if index == 0:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def letterboxed(image: Image, width: int, height: int) -> Image:
    """Return the image scaled to fit a grey canvas and centred on it."""
    scale = min(width / image.shape[1], height / image.shape[0])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    canvas = np.full((height, width, 3), 110, np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas
