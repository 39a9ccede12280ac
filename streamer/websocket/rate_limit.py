"""How many control messages a client may send, and how large; asked before they are parsed. Pure."""

from __future__ import annotations

from streamer.core.token_bucket import TokenBucket

CONTROL_MAX_BYTES = 64 << 10
#: A hello of a client that has not shown a valid key yet.
HELLO_MAX_BYTES = 4 << 10
#: Values in one control message, at any depth: the longest list of classes four times over.
CONTROL_MAX_VALUES = 4096
#: A message costs one token, and one more for each of these bytes up to a limit, as the number of values is
#: limited too. A kilobyte of numbers takes some 0.5 ms to parse and check, a burst of any messages 40 ms.
_BYTES_PER_TOKEN = 1 << 10
_MOST_TOKENS = 6
CONTROL_PER_S = 20.0
#: A burst of short messages at the start of a session, or from a slider, is not abuse.
CONTROL_BURST = 60
#: Messages refused for their rate before the connection is closed.
CONTROL_REFUSALS = 60


#: Frames in text form, which are for debugging: a burst and a rate that a camera does not exceed.
TEXT_FRAMES_PER_S = 60.0
TEXT_FRAMES_BURST = 120


class ControlRate:
    """Takes ``now`` in monotonic seconds."""

    def __init__(self, now: float, per_s: float = CONTROL_PER_S, burst: int = CONTROL_BURST) -> None:
        self._bucket = TokenBucket(per_s, burst, now)
        self._refusals = 0

    def take(self, now: float, size_bytes: int = 0) -> bool:
        """Count one message of that size; False when it came too soon after the others."""
        if self._bucket.take(now, min(_MOST_TOKENS, 1 + size_bytes // _BYTES_PER_TOKEN)):
            return True
        self._refusals += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether so many were refused that the client will not learn."""
        return self._refusals > CONTROL_REFUSALS


def size_in_bytes(data: str | bytes) -> int:
    """Return the bytes that a message had on the wire; one character may be four of them."""
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode(errors="surrogatepass"))
