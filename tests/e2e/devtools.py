"""Drives Chromium over its DevTools protocol, for tests of tabs that are really hidden.

Playwright tells every tab that it is visible and has the focus, so with it a test can only simulate a hidden
one.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest

from tests.e2e.browser import WAIT_S

_ADDRESS = re.compile(r"ws://\S+")


class Chromium:
    """A headless browser whose camera shows a Motion JPEG file. Use it with ``async with``."""

    def __init__(self, camera: Path) -> None:
        self._camera = camera
        self._folder = tempfile.TemporaryDirectory()
        self._last = 0
        self._process: asyncio.subprocess.Process | None = None
        self._http = aiohttp.ClientSession()
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def __aenter__(self) -> Self:
        path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if path is None:
            await self._http.close()
            pytest.skip("needs Chromium, which is not installed")
        self._process = await asyncio.create_subprocess_exec(
            path,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-video-capture={self._camera}",
            f"--user-data-dir={self._folder.name}",
            "--remote-debugging-port=0",
            "about:blank",
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        async with asyncio.timeout(WAIT_S):
            while (line := await self._process.stderr.readline()) and not (
                found := _ADDRESS.search(line.decode())
            ):
                pass
        assert line, "Chromium has ended"
        assert found is not None
        self._socket = await self._http.ws_connect(found[0], max_msg_size=0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.communicate()
        await self._http.close()
        self._folder.cleanup()

    async def send(self, method: str, session: str = "", **params: object) -> dict[str, Any]:
        """Send a command and return its result; events are ignored."""
        assert self._socket is not None
        self._last += 1
        number = self._last
        await self._socket.send_json(
            {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        )
        async with asyncio.timeout(WAIT_S):
            while (message := await self._socket.receive_json()).get("id") != number:
                pass
        if "error" in message:
            raise AssertionError(f"{method}: {message['error']}")
        result: dict[str, Any] = message["result"]
        return result


class Tab:
    """One tab. It is hidden while another one is shown."""

    def __init__(self, browser: Chromium, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    @classmethod
    async def open(cls, browser: Chromium, address: str) -> Tab:
        """Open a tab in the window of the others, and show it."""
        target = (await browser.send("Target.createTarget", url=address))["targetId"]
        session = await browser.send("Target.attachToTarget", targetId=target, flatten=True)
        return cls(browser, target, session["sessionId"])

    async def show(self) -> None:
        """Show this tab instead of the others."""
        await self._browser.send("Target.activateTarget", targetId=self._target)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        found = await self._browser.send(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    async def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true; one that fails because the page still loads is not."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not await self.evaluate(f"typeof demo !== 'undefined' && Boolean({condition})"):
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise AssertionError(f"never true: {condition}") from error


@asynccontextmanager
async def tab_of(camera: Path, address: str) -> AsyncIterator[tuple[Chromium, Tab]]:
    """Run a browser with a tab that shows ``address``."""
    async with Chromium(camera) as browser:
        yield browser, await Tab.open(browser, address)
