"""Controls the flow of one stream: sequence numbers, window, mailbox, drops, and the ledger. Pure.

It takes frames, outcomes and `now` (monotonic seconds), and returns the messages to send. A session holds one
`FlowControl` for each of its streams; `stream_handle` connects it with the dispatcher.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamer.accounting.ledger import Ledger
from streamer.core.token_bucket import TokenBucket
from streamer.imaging.frame import StreamFrame
from streamer.protocol import server_messages
from streamer.protocol.server_messages import Error, FlowFields, ServerMessage
from streamer.protocol.wire import IMAGE_CODECS, Codec, DropReason, FrameFlag
from streamer.streams.mailbox import Mailbox

#: Number of frames of a stream that may be in progress at once: one executes while the next is prepared.
MAX_STARTED = 2
WINDOW_START = 2
WINDOW_MAX_LIVE = 4
WINDOW_MAX_ALL = 8
#: The window grows after this many results that leave no other frame of the stream waiting or in progress. A
#: result that leaves a waiting frame restarts the count.
GROW_AFTER = 4
#: After the window has shrunk or closed, frames that the earlier, larger window allows are still accepted for
#: this time. It is longer than most round trips.
WINDOW_GRACE_S = 2.0
#: Up to this rate of frames past the window, a live sender may ignore the window, because the newest frame
#: wins. The burst is half a second of a sender at 200 fps, because a stall of the network or of this process
#: must not count against the sender.
OVERRUN_FPS = 400.0
OVERRUN_BURST = 100
#: Number of frames past the window that are answered with an error. After one more the connection is closed.
MAX_VIOLATIONS = 3
#: The flag as a number, because testing it as a `FrameFlag` takes six function calls.
_DISCONTINUITY = FrameFlag.DISCONTINUITY.value


class WindowExceeded(Exception):
    """The client keeps sending past its window. The connection must be closed with 4429."""


@dataclass(slots=True)
class QueuedFrame:
    """Holds a frame in the mailbox, and when it arrived."""

    frame: StreamFrame
    arrived: float


class FlowControl:
    """Controls the flow of one stream, and sees to it that every received frame gets exactly one outcome."""

    def __init__(
        self,
        number: int,
        *,
        mode: str = "live",
        fps: float | None = None,
        codecs: tuple[Codec, ...] = IMAGE_CODECS,
    ) -> None:
        self.number = number
        self._codecs = codecs
        self.mode = mode
        #: Frame rate that the client announced; None: not announced.
        self.fps = fps
        self.ledger = Ledger()
        self.paused = False
        #: Whether no further frame may start, because the model of the stream is about to be another one.
        self.held = False
        self.window = WINDOW_START
        #: Frame rate granted under overload; None: no limit.
        self.max_fps: float | None = None
        self.last_seq = 0
        self._mailbox: Mailbox[QueuedFrame] = (
            Mailbox(1, newest_wins=True) if mode == "live" else Mailbox(WINDOW_MAX_ALL, newest_wins=False)
        )
        #: Frames without an outcome, oldest first: sequence number to the count of arrivals when it arrived.
        self._unfinished: dict[int, int] = {}
        self._arrivals = 0
        self._started = 0
        self._held_window: int | None = None
        self._grace_window, self._grace_until = WINDOW_START, 0.0
        self._overrun = TokenBucket(OVERRUN_FPS, OVERRUN_BURST, 0.0)
        self._violations = self._empty_results = 0
        #: When the next frame is due under `max_fps`. A frame may start up to one period earlier.
        self._due = 0.0
        self._dropped_since_result = 0
        #: Number of discontinuities in the client's frames. Tracks do not continue across one.
        self.breaks = 0
        self._epoch: int | None = None
        #: Consecutive dropped frames that no ``drop`` message has reported yet: first, last, reason.
        self._unsent_drops: tuple[int, int, DropReason] | None = None

    # -- state that messages carry -------------------------------------------------------------------

    @property
    def ack(self) -> int:
        """Highest sequence number up to which every frame has an outcome."""
        first = next(iter(self._unfinished), None)
        return self.last_seq if first is None else first - 1

    @property
    def granted(self) -> int:
        """The window as messages state it; 0 means that the client must not send."""
        return self.window if self._held_window is None else self._held_window

    def flow_messages(self, reason: str) -> list[ServerMessage]:
        """Return a ``flow`` message, preceded by the drops that its ``ack`` includes."""
        message = server_messages.flow(self.number, self.granted, self.max_fps, self.ack, reason)
        return [*self.take_drops(), message]

    def close_window(self, now: float, reason: str) -> list[ServerMessage]:
        """Close the window for now; ``reason`` is sent to the client."""
        self._remember_window(now)
        self._held_window = 0
        return self.flow_messages(reason)

    def reopen_window(self, reason: str) -> list[ServerMessage]:
        """Open the window again after :meth:`close_window`."""
        self._held_window = None
        return self.flow_messages(reason)

    def limit_rate(self, max_fps: float | None, reason: str) -> list[ServerMessage]:
        """Grant another frame rate in frames per second; None means no limit."""
        self.max_fps, self._due = max_fps, 0.0
        return self.flow_messages(reason)

    # -- frames in -----------------------------------------------------------------------------------

    def receive(self, frame: StreamFrame, now: float) -> list[ServerMessage]:
        """Accept, refuse or drop one frame, and return the messages to send at once.

        Raises WindowExceeded if the client has ignored its window too often.
        """
        if frame.seq <= self.last_seq:
            if self.mode == "all" and frame.seq <= self.ack:
                return []  # the frame was sent again after a reconnect and is already answered
            self.ledger.received += 1
            self.ledger.failed += 1
            return [self._error("bad_seq", f"seq {frame.seq} after {self.last_seq}: it must rise", frame.seq)]
        self.ledger.received += 1
        self._arrivals += 1
        if frame.codec not in self._codecs:
            name, taken = frame.codec.name.lower(), ", ".join(codec.name.lower() for codec in self._codecs)
            return self._refuse(frame, "unsupported_codec", f"codec is {name}; this server takes {taken}")
        if self._past_window(now):
            self._violations += 1
            if self._violations > MAX_VIOLATIONS:
                self.ledger.failed += 1
                raise WindowExceeded(f"{self._violations} frames past the window")
            return self._refuse(
                frame, "window", f"past the window: seq {frame.seq}, ack {self.ack}, win {self.granted}"
            )
        self.last_seq = frame.seq
        self._unfinished[frame.seq] = self._arrivals
        # Discontinuities are counted on arrival, because the frame may be superseded before it is taken.
        if int(frame.flags) & _DISCONTINUITY or self._epoch not in (None, frame.epoch):
            self.breaks += 1
        self._epoch = frame.epoch
        if self.paused:
            return self._drop(frame.seq, DropReason.RATE) + self.take_drops()
        messages: list[ServerMessage] = []
        displaced = self._mailbox.put(QueuedFrame(frame, now))
        if displaced is not None:
            reason = DropReason.RATE if self._rate_limited(now) else DropReason.SUPERSEDED
            messages += self._drop(displaced.frame.seq, reason)
            self._shrink_window(now)
        if not self._started and not self._mailbox.entries:
            messages += self.take_drops()
        return messages

    def discard(self, seq: int, reason: DropReason, text: str = "") -> list[ServerMessage]:
        """Drop a frame that arrived but cannot be used, for example because a key frame is missing."""
        self.ledger.received += 1
        self._arrivals += 1
        self.last_seq = seq
        self._unfinished[seq] = self._arrivals
        messages = self._drop(seq, reason)
        return messages + self.take_drops(text) if text else messages

    def _past_window(self, now: float) -> bool:
        """Return whether the frame that has just arrived exceeds the window and all tolerances."""
        first = next(iter(self._unfinished.values()), self._arrivals)
        span = self._arrivals - first + 1
        allowed = max(self.granted, self._grace_window if now < self._grace_until else 0)
        if span <= allowed:
            return False
        return self.mode != "live" or not self._overrun.take(now)

    def _refuse(self, frame: StreamFrame, code: str, text: str) -> list[ServerMessage]:
        self.last_seq = frame.seq
        self.ledger.failed += 1
        return [*self.take_drops(), self._error(code, text, frame.seq)]

    def _remember_window(self, now: float) -> None:
        self._grace_window = max(self.granted, self._grace_window if now < self._grace_until else 0)
        self._grace_until = now + WINDOW_GRACE_S

    def _shrink_window(self, now: float) -> None:
        """Shrink the window: a superseded frame shows that the window was too large for the device."""
        self._empty_results = 0
        if self.window > WINDOW_START:
            self._remember_window(now)
            self.window -= 1

    # -- frames out ----------------------------------------------------------------------------------

    def _rate_limited(self, now: float) -> bool:
        # A frame may start up to one period early, because the frames of a camera with exactly this rate are
        # early as often as late.
        return self.max_fps is not None and now < self._due - 1.0 / self.max_fps

    @property
    def pending(self) -> bool:
        """Whether a frame waits, even if it may not start now."""
        return bool(self._mailbox.entries)

    def has_ready_frame(self, now: float) -> bool:
        """Return whether a frame waits that may start now."""
        startable = bool(self._mailbox.entries) and self._started < MAX_STARTED and not self.held
        return startable and not self._rate_limited(now)

    @property
    def idle(self) -> bool:
        """Whether every frame that was started has its outcome."""
        return not self._started

    def take(self, now: float, max_age_s: float) -> tuple[QueuedFrame | None, list[ServerMessage]]:
        """Take the next frame for decoding; live frames older than ``max_age_s`` are dropped as stale."""
        messages: list[ServerMessage] = []
        while (waiting := self._mailbox.take()) is not None:
            if self.mode == "live" and now - waiting.arrived > max_age_s:
                messages += self._drop(waiting.frame.seq, DropReason.STALE)
                continue
            self._started += 1
            self._due = max(self._due, now) + (1.0 / self.max_fps if self.max_fps else 0.0)
            return waiting, messages
        if not self._started:
            messages += self.take_drops()
        return None, messages

    # -- outcomes ------------------------------------------------------------------------------------

    def answered(self, seq: int) -> list[ServerMessage]:
        """Record the result of a started frame, and return the messages to send before it.

        The caller then sends the result with the fields of :meth:`result_fields`.
        """
        self._started -= 1
        self.ledger.inferred += 1
        del self._unfinished[seq]
        self._violations = 0
        self._grow_window()
        return self.take_drops()

    def result_fields(self) -> FlowFields:
        """Return the flow fields of a ``result`` message; call this right after :meth:`answered`."""
        dropped, self._dropped_since_result = self._dropped_since_result, 0
        return {"ack": self.ack, "win": self.granted, "dropped": dropped}

    def failed(self, seq: int, code: str, text: str, retry_ms: int | None = None) -> list[ServerMessage]:
        """Record that a started frame failed."""
        self._started -= 1
        self.ledger.failed += 1
        del self._unfinished[seq]
        return [*self.take_drops(), self._error(code, text, seq, retry_ms)]

    def dropped(self, seq: int, reason: DropReason, text: str = "") -> list[ServerMessage]:
        """Record that a started frame was dropped, because it was too old or could not be decoded.

        ``text`` says what was wrong with a frame that could not be decoded.
        """
        self._started -= 1
        messages = self._drop(seq, reason)
        if text or not (self._started or self._mailbox.entries):
            messages += self.take_drops(text)
        return messages

    def pause(self) -> list[ServerMessage]:
        """Drop the frames that wait, because the client pauses the stream."""
        self.paused = True
        messages: list[ServerMessage] = []
        for waiting in self._mailbox.clear():
            messages += self._drop(waiting.frame.seq, DropReason.STALE)
        return messages + (self.take_drops() if not self._started else [])

    def resume(self) -> list[ServerMessage]:
        """Continue after a pause."""
        self.paused = False
        return self.flow_messages("resumed")

    def abandon(self) -> list[ServerMessage]:
        """Drop the frames that wait, because the connection is gone.

        The caller need not send the messages that this returns.
        """
        messages: list[ServerMessage] = []
        for waiting in self._mailbox.clear():
            messages += self._drop(waiting.frame.seq, DropReason.STALE)
        return messages + self.take_drops()

    @property
    def has_unsent_drops(self) -> bool:
        """Whether the client does not know of some drops yet, so that their frames occupy its window."""
        return self._unsent_drops is not None

    def _grow_window(self) -> None:
        """Grow the window if no frame waits at several results: then the round trip limits the frame rate."""
        if self._mailbox.entries:
            self._empty_results = 0
        if self._mailbox.entries or self._started:
            return
        self._empty_results += 1
        limit = WINDOW_MAX_LIVE if self.mode == "live" else WINDOW_MAX_ALL
        if self._empty_results >= GROW_AFTER and self.window < limit:
            self.window += 1
            self._empty_results = 0

    def _drop(self, seq: int, reason: DropReason) -> list[ServerMessage]:
        """Account a drop, and return the message about earlier drops if it cannot include this one.

        Consecutive drops with the same reason become one message, which is sent before the next outcome.
        """
        self.ledger.dropped[reason] += 1
        self._dropped_since_result += 1
        del self._unfinished[seq]
        unsent = self._unsent_drops
        if unsent is not None and unsent[1] + 1 == seq and unsent[2] is reason:
            self._unsent_drops = (unsent[0], seq, reason)
            return []
        due = self.take_drops()
        self._unsent_drops = (seq, seq, reason)
        return due

    def take_drops(self, text: str = "") -> list[ServerMessage]:
        """Return the ``drop`` message that was not sent yet, if any; ``text`` says more about the reason."""
        if self._unsent_drops is None:
            return []
        first, last, reason = self._unsent_drops
        self._unsent_drops = None
        return [server_messages.drop(self.number, first, last, reason.value, self.ack, self.granted, text)]

    def _error(self, code: str, text: str, seq: int, retry_ms: int | None = None) -> Error:
        message = server_messages.error(code, text, stream=self.number, seq=seq, retry_ms=retry_ms)
        message["ack"], message["win"] = self.ack, self.granted
        return message
