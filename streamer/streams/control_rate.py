"""How many control messages a client may send, and how large; checked before they are parsed. Pure."""

from __future__ import annotations

from streamer.core.token_bucket import TokenBucket

CONTROL_MAX_BYTES = 64 << 10
#: Values in one control message, at any depth: the longest list of classes four times over.
CONTROL_MAX_VALUES = 4096
#: A message costs one token, and one more for each of these bytes, up to a limit because the number of values
#: is limited too. A kilobyte of numbers takes some 0.5 ms to parse and check, a burst of messages 40 ms.
_BYTES_PER_TOKEN = 1 << 10
_MAX_TOKENS = 6
CONTROL_PER_S = 20.0
#: A burst of short messages at the start of a session, or from a slider, is not abuse.
CONTROL_BURST = 60
#: Messages refused for their rate before the session ends.
CONTROL_REFUSALS = 60


class RateLimited(Exception):
    """The message came too soon after the others. It is ignored, and the client gets an error."""


class TooManyMessages(Exception):
    """The client ignored errors about its rate. Its session must end."""


class ControlRate:
    """The rate of one client's messages; ``noun`` is what errors call them. Times are monotonic seconds."""

    def __init__(
        self,
        now: float,
        per_s: float = CONTROL_PER_S,
        burst: int = CONTROL_BURST,
        noun: str = "control messages",
    ) -> None:
        self._bucket = TokenBucket(per_s, burst, now)
        self._refusals = 0
        self._text = f"more than {per_s:g} {noun} a second"

    def charge(self, now: float, size_bytes: int = 0) -> None:
        """Count one message of that size. Raises RateLimited or TooManyMessages."""
        if self._bucket.take(now, min(_MAX_TOKENS, 1 + size_bytes // _BYTES_PER_TOKEN)):
            return
        self._refusals += 1
        if self._refusals > CONTROL_REFUSALS:
            raise TooManyMessages(self._text)
        raise RateLimited(self._text)


def size_in_bytes(data: str | bytes) -> int:
    """Return the bytes that a message had on the wire; one character may be four of them."""
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    return len(data.encode(errors="surrogatepass"))
