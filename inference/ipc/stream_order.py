"""Keeps the frames of a stream in order while its worker changes over to other engines."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable


class StreamOrder:
    """Holds back a frame for the new engines while former ones have an earlier frame of its stream.

    Without it, the later frame could get its result first. All methods run on the event loop.
    """

    def __init__(self) -> None:
        #: Number of frames that former engines have, by stream; almost always empty.
        self.late: dict[int, int] = {}
        #: What submits the frames that are held back, by stream.
        self._held: defaultdict[int, deque[Callable[[], None]]] = defaultdict(deque)

    def add(self, streams: Iterable[int]) -> None:
        """Note a frame of each of ``streams`` that former engines have; 0 stands for POSTs."""
        for stream in streams:
            if stream:
                self.late[stream] = self.late.get(stream, 0) + 1

    def hold(self, stream: int, submit: Callable[[], None]) -> None:
        """Call ``submit`` once no former engine has a frame of the stream."""
        self._held[stream].append(submit)

    def ended(self, stream: int) -> None:
        """Note that a former engine has one frame of a stream less, and submit what waited for it."""
        left = self.late.get(stream, 0) - 1
        if left > 0:
            self.late[stream] = left
            return
        self.late.pop(stream, None)
        for submit in self._held.pop(stream, ()):
            submit()

    def end_all(self) -> None:
        """Submit everything that is held back."""
        for stream in list(self.late):
            self.late.pop(stream)
            for submit in self._held.pop(stream, ()):
                submit()
