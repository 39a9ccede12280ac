"""Opens taps for a worker's streams: none where sampling is off, or a stream's owner does not want it."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Collection

from inference.models.model import ModelInfo
from streamer.sampling.candidate import Candidate, Origin, Rival
from streamer.sampling.sampler import INTERVAL_S, Shot, Tap
from streamer.sampling.slug import UNNAMED, slug

#: Begins to run a shot of a version through another one.
CompareVersions = Callable[[str, Shot, Callable[[Rival | None], None]], bool]


class Taps:
    """``offer`` hands a candidate over, never waiting; None where sampling is off."""

    def __init__(
        self,
        offer: Callable[[Candidate], bool] | None,
        denied: Collection[str],
        compare: CompareVersions | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._offer = offer
        self._interval_s = interval_s
        self._compare = compare
        self._denied = frozenset(slug(name) for name in denied)

    @property
    def on(self) -> bool:
        """Whether frames may be kept at all."""
        return self._offer is not None

    def open(
        self, name: str, transport: str, version: str, model: ModelInfo, *, still: bool = False
    ) -> Tap | None:
        """Return a tap for the stream of that name; None when its frames must not be kept.

        ``still``: its pictures have nothing to do with each other.
        """
        stream = slug(name)
        if self._offer is None or stream in self._denied:
            return None
        session = secrets.randbits(32) if stream == UNNAMED else 0
        origin = Origin(stream, transport, version, model.name, model.sha256, model.labels, session)
        compare = functools.partial(self._compare, version) if self._compare is not None else None
        return Tap(
            origin,
            self._offer,
            time.monotonic(),
            still=still,
            compare=compare,
            interval_s=self._interval_s,
        )
