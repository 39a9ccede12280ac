"""The asynchronous stream: offers pictures, keeps a connection, yields outcomes. `flow` holds the rules."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from streamer.client.address import stream_address
from streamer.client.bell import Bell
from streamer.client.control import Control
from streamer.client.cookies import cookies
from streamer.client.dialer import Dialer
from streamer.client.encoder import Picture, PictureLimits
from streamer.client.errors import BadInput, ClientError, ConnectionFailed, StreamClosed, UnreadOutcomes
from streamer.client.flow import Flow
from streamer.client.ledger import Ledger
from streamer.client.link import Link, LinkLost
from streamer.client.offers import Offer, Offers
from streamer.client.options import MODES, Options
from streamer.client.params import Params
from streamer.client.results import Outcome
from streamer.client.sender import Sender
from streamer.client.state import Phase, State, Watcher
from streamer.client.version import client_version
from streamer.protocol import CloseCode

log = logging.getLogger("streamer.client")

#: Outcomes that may wait to be read. Half a minute of a camera; whoever is further behind does not read.
UNREAD_MAX = 1000
TICK_S = 0.5


class DetectStream:
    """One live stream of pictures to a ``/v1/stream`` address.

    ``mode`` is ``live`` (newest picture wins, none is sent twice) or ``all`` (every picture, in order).
    Use as an async context manager: entering waits for the first connection. Not safe for threads; the
    pictures offered must not be changed before their outcome has come.
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
        if mode not in MODES:
            raise BadInput(f"mode is {mode!r}; allowed are {' and '.join(MODES)}")
        self.mode = mode
        self.state = State(Phase.CLOSED)
        #: What the server said of its model: ``version``, ``name``, ``labels``, ``input``.
        self.model: Mapping[str, Any] = {}
        self._address = stream_address(url, token)
        self._control = Control(params if isinstance(params, Params) else Params(**(params or {})))
        self._options = options or Options()
        self._dialer = Dialer(self._address, self._options, self._set_state)
        self._on_state = on_state
        self._flow = Flow(mode)
        self._offers = Offers(mode, self._flow.ledger)
        self._bell = Bell()
        self._sender = Sender(self._flow, self._offers, self._bell, self._options, self._emit)
        self._outcomes: deque[Outcome] = deque()
        #: None until started; ends with the stream.
        self._runner: asyncio.Task[None] | None = None
        self._link: Link | None = None
        self._failure: ClientError | None = None
        self._closing = False

    # -- life cycle ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run(), name="detect-stream")
        self._runner.add_done_callback(lambda _: self._bell.ring())
        try:
            await self._bell.until(lambda: self._link is not None or self._over)
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

    async def finish(self, timeout_s: float = 30.0) -> None:
        """Take no more pictures, wait for the outcomes of those on their way, say goodbye.

        What has none after ``timeout_s`` ends as a drop ``closed``. Outcomes stay to be read.
        """
        self._closing = True
        self._bell.ring()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._bell.until(self._nothing_pending)
        await self.close()

    def _nothing_pending(self) -> bool:
        return self._over or not (len(self._offers) or self._flow.in_flight)

    @property
    def _over(self) -> bool:
        """Whether no outcome will come any more."""
        return self._failure is not None or self._runner is None or self._runner.done()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._runner is not None and self._runner.done() and not self._runner.cancelled():
            self._runner.result()  # a bug of ours: raise what it was

    async def close(self) -> None:
        """End at once; whatever has no outcome yet becomes a drop ``closed``."""
        self._closing = True
        link, runner = self._link, self._runner
        if link is not None and not link.leaving:
            with contextlib.suppress(LinkLost, TimeoutError):
                async with asyncio.timeout(1.0):
                    await link.send({"type": "bye", "code": CloseCode.DONE.value, "reason": "done"})
        self._emit(self._let_go("closed"))
        if runner is not None:
            runner.cancel()
            # Not our own cancellation: the runner's.
            await asyncio.wait([runner])
        if self._failure is None:
            self._set_state(State(Phase.CLOSED))
        self._bell.ring()

    def _let_go(self, reason: str) -> list[Outcome]:
        return [
            *self._flow.abandon(reason),
            *self._offers.drop_current(reason),
            *self._offers.drop_waiting(reason),
        ]

    # -- pictures in ---------------------------------------------------------------------------------

    def offer(self, picture: Picture, *, tag: Any = None, captured_s: float | None = None) -> bool:
        """Offer a picture without waiting; returns whether it was taken.

        Not taken (and counted in ``ledger.skipped``): no connection, window shut, faster than granted,
        paused. Every picture taken has exactly one outcome, which carries ``tag``; its ``seq`` is 0 when a
        newer picture took its place before it was sent. ``captured_s`` is the capture time in seconds on
        any clock that does not go back; the monotonic clock when None.

        Raises StreamClosed after the end, or the error that ended the stream.
        """
        self._check_open()
        captured = _capture_time(captured_s)
        reason = self._refusal(time.monotonic())
        if reason is not None:
            self._offers.refuse(reason)
            return False
        self._take(Offer(picture, captured, tag))
        return True

    def skip(self, reason: str) -> None:
        """Count a picture that the caller itself left out, so that the ledger covers everything captured."""
        self._offers.refuse(reason)

    async def send(self, picture: Picture, *, tag: Any = None, captured_s: float | None = None) -> None:
        """Offer a picture, waiting until it is taken. Raises as :meth:`offer` does."""
        captured = _capture_time(captured_s)
        while True:
            self._check_open()
            now = time.monotonic()
            if self._refusal(now) is None and not (self.mode == "live" and len(self._offers)):
                self._take(Offer(picture, captured, tag))
                return
            await self._bell.wait(self._flow.rate_wait_s(now))

    def _take(self, offer: Offer) -> None:
        self._emit(self._offers.put(offer))
        self._bell.ring()

    def _refusal(self, now: float) -> str | None:
        if self._control.paused:
            return "paused"
        if self.mode == "all":
            # Order is kept whatever happens to the connection: the queue alone decides.
            return "window" if self._offers.full else None
        if self._link is None or self._link.leaving:
            return "disconnected"
        return self._flow.refusal(now, taken=int(self._offers.current is not None))

    def _check_open(self) -> None:
        self._raise_failure()
        if self._closing or self._over:
            raise StreamClosed("the stream is not open")
        if len(self._outcomes) >= UNREAD_MAX:
            raise UnreadOutcomes(
                f"{len(self._outcomes)} outcomes were not read; iterate over the stream in a task of its own"
            )

    # -- control -------------------------------------------------------------------------------------

    async def configure(self, params: Params | None = None, **changes: Any) -> int:
        """Change parameters in mid-stream; returns the ``cfg`` that results computed with them carry.

        Raises BadInput with the server's explanation when it refuses a value.
        """
        control = self._control
        before = control.params
        number = control.change(params or Params(**changes))
        await self._tell([control.configure_message()])
        await self._bell.until(lambda: control.decided(number) or self._closing or self._over)
        if control.refusal is not None:
            control.params = before
            raise BadInput(control.refusal)
        if not control.in_effect(number):
            self._check_open()
        return number

    async def pause(self) -> None:
        """Say that nothing comes for a while: the server keeps the stream without its idle limit."""
        await self._tell([self._control.pause_message(paused=True)])

    async def resume(self) -> None:
        """Go on after :meth:`pause`."""
        await self._tell([self._control.pause_message(paused=False)])
        self._bell.ring()

    async def _tell(self, messages: list[dict[str, Any]]) -> None:
        """Send control messages; what a lost connection swallows, the next one is told again."""
        if self._link is not None:
            with contextlib.suppress(LinkLost):
                for message in messages:
                    await self._link.send(message)

    # -- outcomes out --------------------------------------------------------------------------------

    @property
    def effective(self) -> Mapping[str, Any]:
        """Parameters in effect, as the server states them."""
        return self._control.effective

    @property
    def ledger(self) -> Ledger:
        """The counts as they are now."""
        return self._flow.ledger.copy()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the served model, by class id."""
        return tuple(self._flow.labels)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome; raises the error that ended the stream after the last one."""
        while not self._outcomes:
            if self._over:
                self._raise_failure()
                raise StopAsyncIteration
            await self._bell.wait()
        outcome = self._outcomes.popleft()
        self._bell.ring()
        return outcome

    def _emit(self, outcomes: list[Outcome]) -> None:
        if outcomes:
            self._outcomes.extend(outcomes)
            self._bell.ring()

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        log.debug("%s %s", state.phase, state.detail)
        if self._on_state is not None:
            self._on_state(state)

    # -- connections ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Connect, serve, and connect again, until closed or refused for good."""
        try:
            async with aiohttp.ClientSession(cookie_jar=cookies()) as session:
                while True:
                    link = await self._dialer.connect(session, self._hello())
                    await self._dialer.pause(await self._serve(link))
        except ClientError as error:
            self._failure = error
            self._emit(self._let_go("disconnected"))
            self._set_state(State(Phase.CLOSED, str(error)))

    def _hello(self) -> dict[str, Any]:
        offer: dict[str, Any] = {"id": 0, "codec": "jpeg", "mode": self.mode}
        if self._options.fps is not None:
            offer["fps"] = float(self._options.fps)
        if self._options.stream:
            offer["name"] = self._options.stream
        hello: dict[str, Any] = {
            "type": "hello",
            "client": {"name": "streamer.client", "version": client_version()},
            "streams": [offer],
            "params": self._control.params.to_wire(),
        }
        resume = self._flow.resume_offer()
        return hello if resume is None else {**hello, "resume": resume}

    async def _serve(self, link: Link) -> ConnectionFailed:
        """Carry frames and outcomes until the connection is lost; returns how."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._open(link)
            limits = PictureLimits.from_welcome(link.welcome.get("limits", {}))
            work = (self._read(link), self._sender.run(link, limits), self._tick(link))
            tasks = [asyncio.create_task(each) for each in work]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self._link = None
            for task in tasks:
                task.cancel()
            endings = await asyncio.gather(*tasks, return_exceptions=True)
            if self.mode == "live":
                self._emit(self._offers.drop_current("disconnected"))
                self._emit(self._offers.drop_waiting("disconnected"))
            self._emit(self._flow.disconnected())
            await link.close()
        return _why_ended(endings)

    async def _read(self, link: Link) -> None:
        while True:
            self._receive(await link.receive())

    async def _open(self, link: Link) -> None:
        welcome = link.welcome
        self.model = welcome.get("model", {})
        self._control.welcomed(welcome)
        self._flow.welcomed(welcome, time.monotonic())
        self._link = link
        await self._tell(self._control.replay())
        self._set_state(
            State(Phase.CONNECTED, self._address.shown, resumed=bool(welcome.get("resumed", False)))
        )
        self._bell.ring()

    def _receive(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        try:
            self._control.received(message)
            outcomes = self._flow.received(message, time.monotonic())
        except (KeyError, TypeError, ValueError) as error:
            log.warning("a %s message of the server cannot be read: %r", kind, error)
            return
        if outcomes:
            self._dialer.backoff.reset()  # it serves; a welcome alone may be followed by a crash
            self._emit(outcomes)
        self._bell.ring()

    async def _tick(self, link: Link) -> None:
        with contextlib.suppress(LinkLost):
            while True:
                await asyncio.sleep(TICK_S)
                if self._flow.wants_ping(time.monotonic()):
                    await link.send({"type": "ping", "t0": int(time.monotonic() * 1e6)})


def _capture_time(captured_s: float | None) -> float:
    """Return the time for the wire's 64 bits of microseconds. Raises BadInput."""
    if captured_s is None:
        return time.monotonic()
    if not 0 <= captured_s < 1e12:
        raise BadInput(f"captured_s is {captured_s}; allowed are seconds from 0 on")
    return captured_s


def _why_ended(endings: Sequence[BaseException | None]) -> LinkLost:
    """Return the loss; raises what is none: a refusal, or a bug of ours."""
    for ending in endings:
        if isinstance(ending, Exception) and not isinstance(ending, LinkLost):
            raise ending
    lost = next((ending for ending in endings if isinstance(ending, LinkLost)), None)
    return lost or LinkLost("the connection was lost")
