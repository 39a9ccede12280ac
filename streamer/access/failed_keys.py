"""Slows down who shows wrong keys, tokens or tickets: a token bucket for each address, in each worker."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from streamer.core.token_bucket import TokenBucket

#: Wrong ones of an address: so many at once, and then so many a second.
BURST, PER_S = 20, 1.0
#: Addresses and good keys that are remembered; the one that was seen longest ago is forgotten.
MOST_ADDRESSES, MOST_GOOD = 4096, 4096


class TooManyWrongKeys(Exception):
    """So many wrong keys came from this address that no unknown one is looked at for a while."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Too many wrong keys came from this address; try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


def _nothing(_reason: str) -> None:
    """Count nothing."""


class FailedKeys:
    """Asked before a key is looked at, and told what it was.

    Many clients may share an address, behind a proxy that is not in TRUSTED_PROXIES for one. A key that was
    good here before is therefore always looked at; others wait, right or wrong, while their address has no
    attempts left.
    """

    def __init__(
        self, count: Callable[[str], None] = _nothing, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``count`` is told of each refusal: ``wrong`` or ``limited``."""
        self._count = count
        self._clock = clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        #: Digests of keys and tokens that were good; tickets are good once.
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def begin(self, address: str, token: str) -> None:
        """Take an attempt before ``token`` is looked at. Raises TooManyWrongKeys."""
        if _digest(token) in self._good:
            return
        now = self._clock()
        bucket = self._bucket(address, now)
        if not bucket.take(now):
            self._count("limited")
            raise TooManyWrongKeys(bucket.retry_after_s(now))

    def end(self, address: str, token: str, *, good: bool, again: bool) -> None:
        """``token`` was looked at; ``again``: it may be shown again."""
        digest = _digest(token)
        known = digest in self._good
        if not good:
            self._count("wrong")
            if known:  # withdrawn, or expired
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
