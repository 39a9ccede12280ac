"""Limits attempts with wrong keys, tokens or tickets: one token bucket per address, in each worker."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from streamer.core.token_bucket import TokenBucket

#: Allowed wrong attempts of one address: at once, and per second after that.
BURST, PER_S = 20, 1.0
#: Most addresses and valid keys that are remembered; the least recently seen are forgotten first.
MOST_ADDRESSES, MOST_GOOD = 4096, 4096


class TooManyWrongKeys(Exception):
    """Raised when too many wrong keys came from an address; its unknown keys are refused for a while."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many wrong keys came from this address; try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


def _nothing(_reason: str) -> None:
    """Count nothing."""


class FailedKeys:
    """Limits wrong attempts: call `begin` before a key is checked, and `end` with the result.

    Many clients may share an address, for example behind a proxy that is not in TRUSTED_PROXIES. Therefore a
    key that was valid before is always checked; other keys, valid or not, are refused while their address has
    no attempts left.
    """

    def __init__(
        self, count: Callable[[str], None] = _nothing, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Call ``count`` for each refusal, with ``wrong`` or ``limited``."""
        self._count = count
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        #: Digests of keys and tokens that were valid before; tickets are valid only once.
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def begin(self, address: str, token: str) -> None:
        """Use up one attempt, unless ``token`` was valid before. Raises TooManyWrongKeys if none is left."""
        if _digest(token) in self._good:
            return
        now = self._clock()
        bucket = self._bucket(address, now)
        if not bucket.take(now):
            self._count("limited")
            raise TooManyWrongKeys(bucket.retry_after_s(now))

    def end(self, address: str, token: str, *, good: bool, again: bool) -> None:
        """Record the result of the check; ``again`` says that ``token`` is reusable, unlike a ticket."""
        digest = _digest(token)
        known = digest in self._good
        if not good:
            self._count("wrong")
            if known:  # the key was revoked or has expired
                del self._good[digest]
            return
        if not known:
            now = self._clock()
            self._bucket(address, now).spend(now, -1)
        if again:
            self._good[digest] = None
            self._good.move_to_end(digest)
            if len(self._good) > MOST_GOOD:
                self._good.popitem(last=False)

    def _bucket(self, address: str, now: float) -> TokenBucket:
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(PER_S, BURST, now)
            if len(self._buckets) > MOST_ADDRESSES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return bucket


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
