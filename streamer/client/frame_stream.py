"""Defines the base class of streams over any transport: the stream's task, its state and its outcomes."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, TypeAlias

from streamer.client.encoder import ImageInput
from streamer.client.errors import ClientError, StreamClosed, UnreadOutcomes
from streamer.client.results import Ledger, Outcome


class Phase(StrEnum):
    """Phase of a stream's connection."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: Waiting for the next attempt, for the seconds in `State.retry_s`.
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class State:
    """Phase and details of a stream's connection, without credentials."""

    phase: Phase
    #: The address, or the reason for a failure.
    detail: str = ""
    retry_s: float | None = None
    #: Whether the server resumed the session of the previous connection.
    resumed: bool = False
    #: Seconds for which the server has not answered a connection attempt that still continues; None while the
    #: answer is not late.
    silent_s: float | None = None

    @property
    def trouble(self) -> str:
        """Text that says why the stream is not connected and what happens next; empty if nothing is wrong."""
        if self.phase is Phase.WAITING:
            return f"{self.detail}; next try in {self.retry_s or 0.0:.1f} s"
        if self.phase is Phase.CONNECTING and self.silent_s is not None:
            return f"{self.detail} has not answered for {self.silent_s:g} s; waiting"
        return ""


Watcher: TypeAlias = Callable[[State], None]

#: Seconds after which the stream reports that a connection attempt has no answer yet.
SILENT_S = 1.5


@contextlib.contextmanager
def reported_silence(report: Watcher, shown: str) -> Iterator[None]:
    """Report the connection attempt in the ``with`` block if it takes longer than `SILENT_S`.

    The attempt itself continues. ``shown`` is the address without credentials. Needs a running event loop.
    """
    state = State(Phase.CONNECTING, shown, silent_s=SILENT_S)
    timer = asyncio.get_running_loop().call_later(SILENT_S, report, state)
    try:
        yield
    finally:
        timer.cancel()


class Notifier:
    """Lets tasks of one event loop wait for a change of state.

    It needs no lock, because no other task can change state between two awaits.
    """

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all waiters, because the state has changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next notification, or after ``timeout_s``."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as ``condition()`` returns True."""
        while not condition():
            await self.wait()


log = logging.getLogger("streamer.client")

#: Largest number of outcomes that may wait to be read: half a minute of frames from a camera. A caller that
#: leaves more unread does not read outcomes at all.
UNREAD_MAX = 1000


class FrameStream(abc.ABC):
    """Life cycle and outcomes of `DetectStream` and `VideoStream`.

    An async context manager; entering it waits for the first connection. Iterate over it to get the outcomes.
    """

    #: ``live`` (only the newest frame is sent) or ``all`` (every frame is sent, in order).
    mode: str

    def __init__(self, on_state: Watcher | None) -> None:
        self.state = State(Phase.CLOSED)
        #: The model as the server describes it: ``version``, ``name``, ``labels``, ``input``.
        self.model: Mapping[str, Any] = {}
        self._on_state = on_state
        self._notifier = Notifier()
        self._outcomes: deque[Outcome] = deque()
        #: None until the stream is entered.
        self._runner: asyncio.Task[None] | None = None
        #: The error that ended the stream; None when the caller ended it.
        self._failure: ClientError | None = None
        self._closing = False

    # -- public methods ------------------------------------------------------------------------------

    @abc.abstractmethod
    def offer(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a frame without waiting; return whether it was accepted.

        Every accepted frame gets exactly one outcome, which carries ``tag``. ``captured_s`` is the capture
        time in seconds on any clock that never goes back; None stands for the present monotonic time.

        Raises BadInput for a value that is not an image; the stream stays usable. Raises StreamClosed after
        the end, the error that ended the stream, or UnreadOutcomes when too many outcomes wait to be read.
        """

    @abc.abstractmethod
    async def send(self, picture: ImageInput, *, tag: Any = None, captured_s: float | None = None) -> None:
        """Offer a frame and wait until it is accepted. Raises the same errors as :meth:`offer`."""

    @abc.abstractmethod
    def skip(self, reason: str) -> None:
        """Count a frame that the caller does not offer, so that the ledger covers all captured frames."""

    @property
    @abc.abstractmethod
    def ledger(self) -> Ledger:
        """A copy of the present counts."""

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Labels of the served model, by class id."""

    # -- what a transport implements -----------------------------------------------------------------

    @property
    @abc.abstractmethod
    def _connected(self) -> bool:
        """Whether there is a connection now."""

    @property
    @abc.abstractmethod
    def _pending(self) -> bool:
        """Whether an accepted frame has no outcome yet."""

    @abc.abstractmethod
    async def _work(self) -> None:
        """Connect, carry frames, and reconnect, until cancelled.

        Raises ClientError when another attempt cannot succeed.
        """

    @abc.abstractmethod
    def _drop_all(self, reason: str) -> None:
        """End every frame that has no outcome yet as a drop."""

    # -- life cycle ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run(), name=type(self).__name__)
        self._runner.add_done_callback(lambda _: self._notifier.notify())
        try:
            await self._notifier.until(lambda: self._connected or self._over)
        except BaseException:
            await self.close()
            raise
        if self._over:
            await self.close()
            self._raise_failure()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.finish(timeout_s=5.0)
        else:
            await self.close()

    async def _run(self) -> None:
        try:
            await self._work()
        except ClientError as error:
            self._failure = error
            self._drop_all("disconnected")
            self._set_state(State(Phase.CLOSED, str(error)))

    async def finish(self, timeout_s: float = 30.0) -> None:
        """Accept no more frames, wait for the outcomes of those that were accepted, and close the stream.

        Frames without an outcome after ``timeout_s`` end as a drop ``closed``. All outcomes can still be
        read.
        """
        self._closing = True
        self._notifier.notify()
        try:
            async with asyncio.timeout(timeout_s):
                await self._notifier.until(lambda: self._over or not self._pending)
        except TimeoutError:
            log.debug("no outcome for the last frames within %g s", timeout_s)
        await self.close()

    async def close(self) -> None:
        """End at once. Frames without an outcome end as a drop ``closed``."""
        self._closing = True
        self._drop_all("closed")
        runner = self._runner
        if runner is not None:
            runner.cancel()
            # `wait` does not raise the runner's CancelledError, which would look like a cancellation of this
            # task.
            await asyncio.wait([runner])
        if self._failure is None:
            self._set_state(State(Phase.CLOSED))
        self._notifier.notify()

    @property
    def _over(self) -> bool:
        """Whether no further outcome can come."""
        return self._failure is not None or self._runner is None or self._runner.done()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            self._runner.result()  # raises the error, which is a bug in this library

    def _check_open(self) -> None:
        """Raise an error when the stream accepts no frames: it has ended, or the caller reads no outcomes."""
        self._raise_failure()
        if self._closing or self._over:
            raise StreamClosed("the stream is not open")
        if len(self._outcomes) >= UNREAD_MAX:
            raise UnreadOutcomes(
                f"{len(self._outcomes)} outcomes were not read; iterate over the stream in a separate task"
            )

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        log.debug("%s %s", state.phase, state.detail)
        if self._on_state is not None:
            self._on_state(state)
        elif state.trouble:
            # Without a watcher, only this line says why frames are refused.
            log.warning("%s", state.trouble)

    # -- outcomes ------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome. After the last one, raise the error that ended the stream, if any."""
        while not self._outcomes:
            if self._over:
                self._raise_failure()
                raise StopAsyncIteration
            await self._notifier.wait()
        outcome = self._outcomes.popleft()
        self._notifier.notify()
        return outcome

    def _emit(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self._outcomes.extend(outcomes)
            self._notifier.notify()
