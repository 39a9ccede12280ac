"""What a stream of pictures is, whatever carries it: a task that runs it, a state, outcomes to be read."""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from streamer.client.encoder import Picture
from streamer.client.errors import ClientError, StreamClosed, UnreadOutcomes
from streamer.client.results import Ledger, Outcome
from streamer.client.state import Notifier, Phase, State, Watcher

log = logging.getLogger("streamer.client")

#: Outcomes that may wait to be read. Half a minute of a camera; whoever is further behind does not read.
UNREAD_MAX = 1000


class FrameStream(abc.ABC):
    """Life cycle and outcomes of `DetectStream` and `VideoStream`.

    An async context manager: entering waits for the first connection. Iterate for the outcomes.
    """

    #: ``live`` (newest picture wins) or ``all`` (every picture, in order).
    mode: str

    def __init__(self, on_state: Watcher | None) -> None:
        self.state = State(Phase.CLOSED)
        #: What the server said of its model: ``version``, ``name``, ``labels``, ``input``.
        self.model: Mapping[str, Any] = {}
        self._on_state = on_state
        self._notifier = Notifier()
        self._outcomes: deque[Outcome] = deque()
        #: None until started; ends with the stream.
        self._runner: asyncio.Task[None] | None = None
        #: What ended the stream, unless its user did.
        self._failure: ClientError | None = None
        self._closing = False

    # -- what it offers ------------------------------------------------------------------------------

    @abc.abstractmethod
    def offer(self, picture: Picture, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a picture without waiting; returns whether it was taken.

        Every picture taken has exactly one outcome, which carries ``tag``. ``captured_s`` is the capture
        time in seconds on any clock that does not go back; the monotonic clock when None.

        Raises StreamClosed after the end, the error that ended the stream, or UnreadOutcomes.
        """

    @abc.abstractmethod
    async def send(self, picture: Picture, *, tag: Any = None, captured_s: float | None = None) -> None:
        """Offer a picture, waiting until it is taken. Raises as :meth:`offer` does."""

    @abc.abstractmethod
    def skip(self, reason: str) -> None:
        """Count a picture that the caller itself left out, so that the ledger covers everything captured."""

    @property
    @abc.abstractmethod
    def ledger(self) -> Ledger:
        """The counts as they are now."""

    @property
    @abc.abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Labels of the served model, by class id."""

    # -- what carries it -----------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def _connected(self) -> bool:
        """Whether there is a connection now."""

    @property
    @abc.abstractmethod
    def _pending(self) -> bool:
        """Whether a picture that was taken has no outcome yet."""

    @abc.abstractmethod
    async def _work(self) -> None:
        """Connect, serve, and connect again, until cancelled. Raises ClientError when refused for good."""

    @abc.abstractmethod
    def _let_go(self, reason: str) -> None:
        """End every picture that has no outcome yet as a drop."""

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
            self._let_go("disconnected")
            self._set_state(State(Phase.CLOSED, str(error)))

    async def finish(self, timeout_s: float = 30.0) -> None:
        """Take no more pictures, wait for the outcomes of those on their way, say goodbye.

        What has none after ``timeout_s`` ends as a drop ``closed``. Outcomes stay to be read.
        """
        self._closing = True
        self._notifier.notify()
        try:
            async with asyncio.timeout(timeout_s):
                await self._notifier.until(lambda: self._over or not self._pending)
        except TimeoutError:
            log.debug("no outcome for the last pictures within %g s", timeout_s)
        await self.close()

    async def close(self) -> None:
        """End at once; whatever has no outcome yet becomes a drop ``closed``."""
        self._closing = True
        self._let_go("closed")
        runner = self._runner
        if runner is not None:
            runner.cancel()
            # Not our own cancellation: the runner's.
            await asyncio.wait([runner])
        if self._failure is None:
            self._set_state(State(Phase.CLOSED))
        self._notifier.notify()

    @property
    def _over(self) -> bool:
        """Whether no outcome will come any more."""
        return self._failure is not None or self._runner is None or self._runner.done()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            self._runner.result()  # a bug of ours: raise what it was

    def _check_open(self) -> None:
        """Raise what keeps a picture from being offered: the stream's end, or outcomes nobody reads."""
        self._raise_failure()
        if self._closing or self._over:
            raise StreamClosed("the stream is not open")
        if len(self._outcomes) >= UNREAD_MAX:
            raise UnreadOutcomes(
                f"{len(self._outcomes)} outcomes were not read; iterate over the stream in a task of its own"
            )

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        log.debug("%s %s", state.phase, state.detail)
        if self._on_state is not None:
            self._on_state(state)

    # -- outcomes ------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome; raises the error that ended the stream after the last one."""
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
