"""`VideoSource`: reads a camera, video, folder or address in the same way as `streamer push`."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from os import PathLike, fspath
from types import TracebackType
from typing import Self

from streamer.client.capture import Captured, paced, thinned, without_backlog
from streamer.client.errors import BadInput
from streamer.client.sources import SourceOpener, SourceOptions

log = logging.getLogger("streamer.client")


class VideoSource:
    """Yields the frames of one source to ``for`` and ``async for`` loops.

    ``source`` is what `streamer push` takes as SOURCE: ``sample``, a camera number, a path or an address. A
    camera or a live stream never ends by itself. With ``fps``, frames above this rate of source time are left
    out. With ``realtime``, a file plays at its own speed, and frames whose time has passed are left out, also
    those of a live stream that arrive in a burst after a stall; otherwise all frames come as fast as they can
    be read. ``loop`` starts files again at their end. ``size``
    (width, height in pixels), ``fps`` and ``fourcc``, such as ``MJPG``, are requested from a local camera.

    A camera or stream that is lost, or not there yet, is opened again by the iteration, unless ``reconnect``
    is False. ``on_trouble`` receives a sentence about each loss and each attempt that fails; without it, the
    logger ``streamer.client`` writes a warning.

    Raises BadInput when there is no such source, and SourceFailed when it cannot be opened or read and
    another attempt would not help, such as after a wrong password.
    """

    def __init__(
        self,
        source: str | int | PathLike[str],
        *,
        fps: float | None = None,
        realtime: bool = False,
        loop: bool = False,
        size: tuple[int, int] | None = None,
        fourcc: str = "",
        reconnect: bool = True,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        if isinstance(source, bool) or not isinstance(source, str | int | PathLike):
            raise BadInput(f"source is {source!r}; give a camera number, a path or an address")
        if size is not None and (isinstance(size, str) or len(size) != 2):
            raise BadInput(f"size is {size!r}; give width and height in pixels, such as (1280, 720)")
        if fps is not None and not 0 < fps <= 1000:
            raise BadInput(f"fps is {fps!r}; allowed is more than 0, up to 1000")
        self._fps = fps
        self._realtime = realtime
        self._stop = threading.Event()
        name = str(source) if isinstance(source, int) else fspath(source)
        options = SourceOptions(
            fps=fps,
            loop=loop,
            reconnect=reconnect,
            on_trouble=on_trouble or (lambda text: log.warning("%s", text)),
            size=size,
            fourcc=fourcc,
        )
        self._opener = SourceOpener(name, options)
        #: None while it cannot be opened; the iteration tries again.
        self._source = self._opener.attempt()

    @property
    def live(self) -> bool:
        """Whether the source sets the pace, as a camera does. This is assumed of one that is not open yet."""
        return self._source is None or self._source.live

    @property
    def total(self) -> int | None:
        """Number of frames of the source, or None when it is unknown."""
        return None if self._source is None else self._source.total

    def __iter__(self) -> Iterator[Captured]:
        if self._source is None:
            self._source = self._opener.open(self._stop)
            if self._source is None:
                return
        frames = self._source.frames(self._stop)
        if self._realtime and self._source.live:
            frames = without_backlog(frames)
        if self._fps is not None:
            frames = thinned(frames, self._fps)
        if self._realtime and not self._source.live:
            frames = paced(frames, self._stop)
        yield from (frame for frame in frames if not frame.skip)

    async def __aiter__(self) -> AsyncIterator[Captured]:
        # The end of the iteration closes the source: after a cancellation, a thread may still wait for it.
        frames = iter(self)
        try:
            # Reading blocks until the source has a frame, so a thread does it, not the event loop.
            while (frame := await asyncio.to_thread(next, frames, None)) is not None:
                yield frame
        finally:
            self.close()

    def close(self) -> None:
        """End the iteration at its next frame. Any thread may call this."""
        self._stop.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
