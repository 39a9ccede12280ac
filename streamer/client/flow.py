"""Does the client's part of ``detect.v1`` flow control: sequence numbers, window, acks, resends. No I/O.

The stream passes in what it sends, what it receives and ``now`` (monotonic seconds), and gets outcomes back.
Every frame that gets a sequence number gets exactly one outcome, whatever happens to the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamer.client.detections import Detections
from streamer.client.results import Drop, FrameError, Ledger, Outcome, Result
from streamer.protocol.wire import Codec

#: The client sends a ping when the window has been 0 for this long.
HOLD_PING_S = 5.0
#: The client sends a ping when it has sent nothing for this long.
KEEPALIVE_S = 15.0
#: Mode all sends a frame at most this many times, because the frame itself may make the connections end.
MAX_SENDS = 4
#: With ``max_fps``, a frame may be early by this share of a frame interval, because cameras are not exact.
_EARLY = 0.5


@dataclass(slots=True, eq=False)
class Sent:
    """A frame that has a sequence number and no outcome yet."""

    seq: int
    payload: bytes
    codec: Codec
    captured_s: float
    tag: Any
    #: Factors (x, y) that convert boxes to pixels of the original frame.
    scale: tuple[float, float] = (1.0, 1.0)
    #: Width and height of the original frame, upright; (0, 0) when only the server knows them.
    size: tuple[int, int] = (0, 0)
    sent_s: float = 0.0
    sends: int = 0

    @property
    def ts_us(self) -> int:
        """Capture time in microseconds, the unit of the protocol."""
        return max(0, round(self.captured_s * 1e6))


class Flow:
    """State of one stream across all its connections. ``mode`` is ``live`` or ``all``."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.ledger = Ledger()
        self.connected = False
        self.session: str | None = None
        self.labels: Sequence[str] = ()
        self.window = 0
        self.max_fps: float | None = None
        self.last_seq = 0
        #: Frames without an outcome, by sequence number, in ascending order.
        self._unfinished: dict[int, Sent] = {}
        #: Frames of a lost connection that must be sent again (mode all), lowest number first.
        self._to_resend: deque[Sent] = deque()
        #: Ack of the server on this connection. It may include frames whose outcome has not arrived yet.
        self._server_ack = 0
        self._next_at = 0.0
        self._closed_window_since: float | None = None
        self._pinged_at = 0.0
        self._last_sent_at = 0.0

    # -- what may be sent ----------------------------------------------------------------------------

    @property
    def ack(self) -> int:
        """Highest sequence number up to which every frame has an outcome or is acknowledged by the server."""
        first = next(iter(self._unfinished), self.last_seq + 1)
        return max(first - 1, min(self._server_ack, self.last_seq))

    @property
    def in_flight(self) -> int:
        """Number of sent frames without an outcome."""
        return len(self._unfinished)

    @property
    def has_resends(self) -> bool:
        """Whether frames of a lost connection must be sent before new ones."""
        return bool(self._to_resend)

    def refusal(self, now: float, taken: int = 0) -> str | None:
        """Return the reason why the next frame may not be sent now, or None when it may be.

        ``taken`` is the number of accepted frames that will be sent before it.
        """
        if not self.connected:
            return "disconnected"
        number = self._to_resend[0].seq if self._to_resend else self.last_seq + 1
        if number + taken - self.ack > self.window:
            return "window"
        if self.max_fps is not None and now < self._next_at - _EARLY / self.max_fps:
            return "rate"
        return None

    def rate_wait_s(self, now: float) -> float | None:
        """Return the seconds until ``max_fps`` permits a frame; None when another reason prevents it."""
        if self.max_fps is None or self.refusal(now) != "rate":
            return None
        return self._next_at - _EARLY / self.max_fps - now

    def sending(self, frame: Sent, now: float) -> None:
        """Assign a sequence number to a new frame, which the caller sends next."""
        self.last_seq += 1
        frame.seq = self.last_seq
        self._unfinished[frame.seq] = frame
        self.ledger.sent += 1
        self.ledger.in_flight = len(self._unfinished)
        self._mark_sent(frame, now)

    def resending(self, now: float) -> Sent:
        """Return the next frame of a lost connection, which the caller sends again next."""
        frame = self._to_resend.popleft()
        self.ledger.resent += 1
        self._mark_sent(frame, now)
        return frame

    def _mark_sent(self, frame: Sent, now: float) -> None:
        frame.sent_s = self._last_sent_at = now
        frame.sends += 1
        if self.max_fps:
            # Keep the average rate: after an early frame, the next one must wait longer.
            self._next_at = max(self._next_at, now) + 1.0 / self.max_fps

    # -- the connection ------------------------------------------------------------------------------

    def welcomed(self, message: Mapping[str, Any], now: float) -> None:
        """Apply the welcome of a new connection. Sequence numbers continue, even in a new session."""
        self.connected = True
        self.session = str(message.get("session", "")) or None
        self._adopt_model(message)
        self._server_ack = 0
        self._last_sent_at = now
        self.max_fps = None
        self._next_at = 0.0
        flow = message.get("flow")
        self._update_window(flow if isinstance(flow, Mapping) else {"win": 2}, now)
        self._to_resend = deque(self._unfinished.values()) if self.mode == "all" else deque()

    def disconnected(self) -> list[Outcome]:
        """Record that the connection is lost, and return the drops.

        Mode live drops all unfinished frames; mode all keeps them and sends them again.
        """
        self.connected = False
        self.window = 0
        self._closed_window_since = None
        self._to_resend.clear()
        lost = [f for f in self._unfinished.values() if self.mode == "live" or f.sends >= MAX_SENDS]
        return [self._drop(frame, "disconnected") for frame in lost]

    def abandon(self, reason: str) -> list[Outcome]:
        """End every unfinished frame as a drop, because the stream ends."""
        self._to_resend.clear()
        return [self._drop(frame, reason) for frame in list(self._unfinished.values())]

    def resume_request(self) -> dict[str, Any] | None:
        """Return ``hello.resume`` for the session of the last connection; None when there was none."""
        if self.session is None:
            return None
        first = next(iter(self._unfinished), self.last_seq + 1)
        return {"session": self.session, "acks": {"0": first - 1}}

    def ping_due(self, now: float) -> bool:
        """Return whether the caller must send a ping now. True counts the ping as sent.

        A ping is due when the window has been 0 for `HOLD_PING_S`, or when the client has sent nothing for
        `KEEPALIVE_S`.
        """
        if not self.connected:
            return False
        held = (
            self._closed_window_since is not None
            and now - max(self._closed_window_since, self._pinged_at) >= HOLD_PING_S
        )
        if held or now - self._last_sent_at >= KEEPALIVE_S:
            self._pinged_at = self._last_sent_at = now
            return True
        return False

    # -- what is received ----------------------------------------------------------------------------

    def received(self, message: Mapping[str, Any], now: float) -> list[Outcome]:
        """Apply a message about frames, or about another model, and return the outcomes in it."""
        if message.get("stream", 0) != 0:
            return []
        kind = message["type"]
        if kind == "configured":
            self._adopt_model(message)
        outcomes: list[Outcome] = []
        if kind == "result":
            outcomes = self._result(message, now)
        elif kind == "drop":
            first, last = int(message["from"]), int(message["to"])
            named = [frame for seq, frame in self._unfinished.items() if first <= seq <= last]
            text = str(message.get("message", ""))
            outcomes = [self._drop(frame, str(message["reason"]), text) for frame in named]
        elif kind == "error" and isinstance(message.get("seq"), int):
            outcomes = self._error(message)
        if kind in ("result", "drop", "flow", "error"):
            self._update_window(message, now)
        return outcomes

    def _adopt_model(self, message: Mapping[str, Any]) -> None:
        """Use the labels of the model that a message names, if it names one."""
        model = message.get("model")
        if isinstance(model, Mapping):
            self.labels = tuple(str(label) for label in model.get("labels", ()))

    def _update_window(self, message: Mapping[str, Any], now: float) -> None:
        window, ack = message.get("win"), message.get("ack")
        if isinstance(ack, int):
            self._server_ack = max(self._server_ack, ack)
        if isinstance(window, int):
            self.window = window
            if window > 0:
                self._closed_window_since = None
            elif self._closed_window_since is None:
                self._closed_window_since = now
        if "max_fps" in message:
            fps = message["max_fps"]
            self.max_fps = float(fps) if isinstance(fps, int | float) and fps > 0 else None

    def _result(self, message: Mapping[str, Any], now: float) -> list[Outcome]:
        frame = self._unfinished.get(int(message["seq"]))
        if frame is None:  # after a resume, a server may send a result twice
            return []
        width, height = (
            frame.size if frame.size != (0, 0) else (int(message["width"]), int(message["height"]))
        )
        timings = message.get("t")
        detections = Detections.from_rows(
            message["boxes"], self.labels, message.get("text"), message.get("format")
        )
        return [
            self._finish(
                frame,
                Result(
                    seq=frame.seq,
                    captured_s=frame.captured_s,
                    tag=frame.tag,
                    detections=detections.scaled(*frame.scale),
                    width=width,
                    height=height,
                    cfg=int(message.get("cfg", 0)),
                    round_trip_s=now - frame.sent_s,
                    timings_ms=dict(timings) if isinstance(timings, Mapping) else {},
                    damaged=message.get("damaged") is True,
                    reduced=int(message.get("reduced", 1)),
                ),
            )
        ]

    def _error(self, message: Mapping[str, Any]) -> list[Outcome]:
        frame = self._unfinished.get(message["seq"])
        if frame is None:
            return []
        retry = message.get("retry_ms")
        return [
            self._finish(
                frame,
                FrameError(
                    frame.seq,
                    frame.captured_s,
                    frame.tag,
                    code=str(message.get("code", "error")),
                    message=str(message.get("message", "")),
                    retry_ms=retry if isinstance(retry, int) else None,
                ),
            )
        ]

    def _drop(self, frame: Sent, reason: str, text: str = "") -> Outcome:
        return self._finish(frame, Drop(frame.seq, frame.captured_s, frame.tag, reason, text))

    def _finish(self, frame: Sent, outcome: Outcome) -> Outcome:
        del self._unfinished[frame.seq]
        if self._to_resend:
            # A late answer from the old session makes the resend unnecessary.
            self._to_resend = deque(f for f in self._to_resend if f is not frame)
        self.ledger.in_flight = len(self._unfinished)
        self.ledger.account(outcome)
        return outcome
