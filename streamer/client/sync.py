"""`DetectStreamSync`: a `DetectStream` for code without asyncio.

Its event loop runs in a background thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from streamer.client.encoder import ImageInput
from streamer.client.errors import StreamClosed
from streamer.client.frame_stream import State, Watcher
from streamer.client.options import Options, Params
from streamer.client.results import Ledger, Outcome
from streamer.client.stream import DetectStream

T = TypeVar("T")


class DetectStreamSync:
    """Offers the methods of :class:`DetectStream` as blocking methods. It is thread-safe.

    Use it as a context manager and iterate over it to get the outcomes; iteration ends when the stream is
    finished. ``on_state`` is called in the background thread.
    """

    def __init__(
        self,
        url: str,
        *,
        mode: str = "live",
        params: Params | Mapping[str, Any] | None = None,
        token: str | None = None,
        options: Options | None = None,
        on_state: Watcher | None = None,
    ) -> None:
        self._stream = DetectStream(
            url, mode=mode, params=params, token=token, options=options, on_state=on_state
        )
        #: None until the stream is entered, and after its end.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopped: asyncio.Event | None = None

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run_loop, args=(started,), name="detect-stream", daemon=True
        )
        self._thread.start()
        started.wait()
        try:
            self._call(self._stream.__aenter__())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._call(self._stream.__aexit__(kind, error, trace))
        finally:
            self._end_loop()

    def _run_loop(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._until_stopped(started))

    async def _until_stopped(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = stopped = asyncio.Event()
        started.set()
        await stopped.wait()

    def _end_loop(self) -> None:
        loop, thread, stopped = self._loop, self._thread, self._stopped
        self._loop = None
        if loop is not None and thread is not None and stopped is not None:
            loop.call_soon_threadsafe(stopped.set)
            thread.join()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` in the event loop and wait for it. An interrupt (Ctrl-C) cancels it."""
        if self._loop is None:
            work.close()
            raise StreamClosed("the stream is not open")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def offer(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a frame without waiting; return whether it was accepted. See :meth:`DetectStream.offer`."""

        async def offer() -> bool:
            return self._stream.offer(picture, tag=tag, captured_s=captured_s)

        return self._call(offer())

    def send(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> None:
        """Offer a frame and wait until it is accepted."""
        self._call(self._stream.send(picture, tag=tag, captured_s=captured_s))

    def configure(self, params: Params | None = None, **changes: Any) -> int:
        """Change parameters; return the ``cfg`` of results that were computed with them."""
        return self._call(self._stream.configure(params, **changes))

    def pause(self) -> None:
        """Tell the server that no frames will come for a while."""
        self._call(self._stream.pause())

    def resume(self) -> None:
        """Continue after :meth:`pause`."""
        self._call(self._stream.resume())

    def finish(self, timeout_s: float = 30.0) -> None:
        """Accept no more frames, wait for outcomes, and close the stream. Outcomes can still be read."""
        self._call(self._stream.finish(timeout_s))

    def close(self) -> None:
        """End at once. Frames without an outcome end as a drop ``closed``."""
        self._call(self._stream.close())

    def next_outcome(self, timeout_s: float | None = None) -> Outcome | None:
        """Return the next outcome; None when none came within ``timeout_s`` or the stream has ended."""

        async def take() -> Outcome | None:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._stream.__anext__()
            except (TimeoutError, StopAsyncIteration):
                return None

        return self._call(take())

    def __iter__(self) -> Iterator[Outcome]:
        while (outcome := self.next_outcome()) is not None:
            yield outcome

    @property
    def ledger(self) -> Ledger:
        """A copy of the present counts."""
        return self._stream.ledger

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the served model, by class id."""
        return self._stream.labels

    @property
    def model(self) -> Mapping[str, Any]:
        """The model as the server describes it."""
        return self._stream.model

    @property
    def effective(self) -> Mapping[str, Any]:
        """Parameters in effect, as the server states them."""
        return self._stream.effective

    @property
    def state(self) -> State:
        """State of the connection."""
        return self._stream.state
