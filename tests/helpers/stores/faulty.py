"""A small S3 server in a thread that fails on demand; it keeps objects or forwards them to a real store."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections import Counter
from types import TracebackType

import aiohttp
from aiohttp import web
from yarl import URL

BUCKET = "samples"

#: Names of the faults that can happen to a request.
FAULTS = ("503", "slow_down", "reset", "reset_midway", "stored_500", "hang", "429")
_ANSWERS = {"503": (503, "Busy"), "slow_down": (503, "SlowDown"), "429": (429, "Busy")}
_XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>{}</Message>{}</Error>"


class FaultyS3:
    """Runs the server within ``with``. Tests may read its fields and change its faults at any time."""

    def __init__(
        self, *, share: float = 0.0, faults: tuple[str, ...] = FAULTS, seed: int = 1, behind: str = ""
    ) -> None:
        #: URL of the real store behind this one; empty if there is none.
        self._behind = behind
        #: Share of requests that fail, 0 to 1; each fails with a random one of ``faults``.
        self.share = share
        self.faults = faults
        #: Answer to every request, as (status, code); if None, the server stores objects.
        self.answer: tuple[int, str] | None = None
        #: Message, further XML elements and further headers of that answer.
        self.message = "on purpose"
        self.elements = ""
        self.answer_headers: dict[str, str] = {}
        #: The server refuses objects whose key contains this with 400.
        self.refused_key = "?"
        self.objects: dict[str, bytes] = {}
        self.methods: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        #: Keys that a client wrote again with other bytes; tests expect none.
        self.changed: list[str] = []
        #: Headers of the last request.
        self.headers: dict[str, str] = {}
        self.port = 0
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def url(self) -> str:
        """URL of this server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Settings that make a service upload to this store. The keys are dummies."""
        return {
            "S3_ENDPOINT_URL": self.url,
            "S3_BUCKET_NAME": BUCKET,
            "AWS_ACCESS_KEY_ID": "dummy-key",
            "AWS_SECRET_ACCESS_KEY": "dummy-secret",
            "S3_TIMEOUT_S": "1",
        }

    def __enter__(self) -> FaultyS3:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop = self._stop
        if stop is not None:
            self._loop.call_soon_threadsafe(stop.set)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{bucket}/{key:.*}", self._handle)
        app.router.add_route("*", "/{bucket}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()
        hanging = asyncio.all_tasks() - {asyncio.current_task()}
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.methods[request.method] += 1
        self.headers = dict(request.headers)
        fault = self._rng.choice(self.faults) if self._rng.random() < self.share else ""
        if fault:
            self.broken[fault] += 1
        if self.answer is not None:
            return _refusal(*self.answer, self.message, self.elements, self.answer_headers)
        if fault in _ANSWERS:
            return _refusal(*_ANSWERS[fault])
        if fault in ("reset", "reset_midway"):
            if fault == "reset_midway":
                await request.content.read(100)
            return self._cut(request)
        if fault == "hang":
            await asyncio.sleep(3600)
        body = await request.read()
        answer = await self._pass_on(request, body) if self._behind else self._keep(request, body)
        return _refusal(500, "InternalError") if fault == "stored_500" else answer

    async def _pass_on(self, request: web.Request, body: bytes) -> web.Response:
        """Forward a request unchanged to the real store, because its signature covers path, host and body."""
        headers = {name: value for name, value in request.headers.items() if name != "Expect"}
        url = URL(self._behind + request.raw_path, encoded=True)
        async with (
            aiohttp.ClientSession(auto_decompress=False) as http,
            http.request(request.method, url, data=body, headers=headers) as answer,
        ):
            kept = {name: value for name, value in answer.headers.items() if name in ("ETag", "Content-Type")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    def _keep(self, request: web.Request, body: bytes) -> web.Response:
        key = request.match_info["key"]
        if request.match_info["bucket"] != BUCKET:
            return _refusal(404, "NoSuchBucket")
        if request.method != "PUT":
            return _refusal(403, "AccessDenied")
        if self.refused_key in key:
            return _refusal(400, "InvalidArgument")
        if self.objects.get(key, body) != body:
            self.changed.append(key)
        self.objects[key] = body
        return web.Response(headers={"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'})

    @staticmethod
    def _cut(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


def _refusal(
    status: int,
    code: str,
    message: str = "on purpose",
    elements: str = "",
    headers: dict[str, str] | None = None,
) -> web.Response:
    text = _XML.format(code, message, elements)
    return web.Response(status=status, text=text, headers=headers, content_type="application/xml")
