"""Limits how many streams and closed connections a worker's event loop handles in one iteration.

asyncio handles everything that is ready before it polls again. When thousands of clients disconnect or send
something at once, the loop would handle all of them before it answers any other request.
"""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import time
from collections.abc import Mapping
from typing import Any

#: Streams and closed connections handled in one iteration; each takes about 0.2 ms.
MAX_PER_ITERATION = 32
_READ = select.EPOLLIN | select.EPOLLRDHUP
#: Events of a connection that the client has closed, or that has ended on both sides.
_ENDED = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Iteration:
    """Holds when the current iteration of the event loop began, in monotonic seconds."""

    __slots__ = ("started",)

    def __init__(self) -> None:
        self.started = math.inf


class TurnSelector(selectors.BaseSelector):
    """Works like `selectors.EpollSelector`, but returns streams and ended connections after all others."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, selectors.SelectorKey] = {}
        #: Descriptors of streams; the code that adds one removes it before it is closed.
        self.streams: set[int] = set()
        #: Tasks that could go on without waiting pause when the iteration has lasted too long for the others.
        self.iteration = Iteration()
        #: Where the next iteration starts among streams and ended connections, so that all get their turn.
        self._next = 0
        #: Whether the last iteration returned everything that was ready in it.
        self._returned_all = False

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Register a file. Raises KeyError if it is registered."""
        fd = _fd(fileobj)
        if fd in self._keys:
            raise KeyError(f"descriptor {fd} is registered already")
        self._epoll.register(fd, _mask(events))
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Remove a file. Raises KeyError if it is not registered."""
        key = self._keys.pop(_fd(fileobj))
        try:
            self._epoll.unregister(key.fd)
        except OSError:  # the descriptor is closed already, which removed it
            return key
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Change the events of a file. Raises KeyError if it is not registered."""
        key = self._keys[_fd(fileobj)]
        if events != key.events:
            self._epoll.modify(key.fd, _mask(events))
        key = self._keys[key.fd] = key._replace(events=events, data=data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait up to ``timeout`` seconds, None for ever; return the events to handle in this iteration."""
        # A POST takes seven iterations, most of which do not wait, so skip system calls where possible.
        if timeout == 0 and self._returned_all:
            # Callbacks of the last iteration have added callbacks. Run those before polling the kernel again.
            self._returned_all = False
            self.iteration.started = time.monotonic()
            return []
        try:
            # `epoll` rounds up to milliseconds, so it does not return too early.
            found = self._epoll.poll(None if timeout is None else max(0.0, timeout), len(self._keys) or 1)
        except InterruptedError:
            return []
        finally:
            self.iteration.started = time.monotonic()
        self._returned_all = bool(found)
        ready: list[tuple[selectors.SelectorKey, int]] = []
        later: list[tuple[selectors.SelectorKey, int]] = []
        for fd, happened in found:
            key = self._keys.get(fd)
            if key is None:
                continue
            events = 0
            if happened & ~select.EPOLLIN & ~select.EPOLLRDHUP:
                events |= selectors.EVENT_WRITE
            if happened & ~select.EPOLLOUT:
                events |= selectors.EVENT_READ
            if events & key.events:
                waits = happened & _ENDED or fd in self.streams
                (later if waits else ready).append((key, events & key.events))
        if later and len(later) > MAX_PER_ITERATION:
            # The kernel reports the others again in the next iteration.
            self._returned_all = False
            start = self._next % len(later)
            self._next = start + MAX_PER_ITERATION
            later = (later[start:] + later[:start])[:MAX_PER_ITERATION]
        return ready + later

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the registered files by descriptor."""
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return the key of a file. Raises KeyError if it is not registered."""
        return self._keys[_fd(fileobj)]

    def close(self) -> None:
        """Close the selector."""
        self._epoll.close()
        self._keys.clear()


class TurnLoop(asyncio.SelectorEventLoop):
    """An event loop with a `TurnSelector`."""

    #: The clock function itself, which saves a method call: the loop reads the time eight times per frame.
    time = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.turns = TurnSelector()
        super().__init__(self.turns)


def running_iteration() -> Iteration:
    """Return the iteration of the running event loop; one that never begins if it has no `TurnSelector`."""
    loop = asyncio.get_running_loop()
    return loop.turns.iteration if isinstance(loop, TurnLoop) else Iteration()


def make_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for a worker."""
    return TurnLoop()


def _fd(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _mask(events: int) -> int:
    return (_READ if events & selectors.EVENT_READ else 0) | (
        select.EPOLLOUT if events & selectors.EVENT_WRITE else 0
    )
