"""Creates the samplers of a worker's streams; none when sampling is off or the stream may not be sampled."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Collection

from inference.models.model import ModelInfo
from streamer.sampling.candidate import UNNAMED, SampleCandidate, ShadowResult, StreamInfo, slug
from streamer.sampling.sampler import INTERVAL_S, Observation, Sampler

#: Starts running an observation of a version through another version; see `sampler.StartShadowRun`.
StartShadowRunOf = Callable[[str, Observation, Callable[[ShadowResult | None], None]], bool]


class SamplerFactory:
    """Creates samplers, all with the same settings."""

    def __init__(
        self,
        submit: Callable[[SampleCandidate], bool] | None,
        denied: Collection[str],
        start_shadow_run: StartShadowRunOf | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """``submit`` sends a candidate without waiting, None when sampling is off; ``denied`` are stream
        names.
        """
        self._submit = submit
        self._interval_s = interval_s
        self._start_shadow_run = start_shadow_run
        self._denied = frozenset(slug(name) for name in denied)

    @property
    def on(self) -> bool:
        """Whether sampling is on."""
        return self._submit is not None

    def create(
        self, name: str, transport: str, version: str, model: ModelInfo, *, unrelated: bool = False
    ) -> Sampler | None:
        """Return a sampler for the stream of that name; None when its frames must not be kept.

        ``unrelated`` says that the images of the stream are unrelated to each other.
        """
        slugged = slug(name)
        if self._submit is None or slugged in self._denied:
            return None
        session = secrets.randbits(32) if slugged == UNNAMED else 0
        stream = StreamInfo(slugged, transport, version, model.name, model.sha256, model.labels, session)
        start = self._start_shadow_run
        return Sampler(
            stream,
            self._submit,
            time.monotonic(),
            unrelated=unrelated,
            start_shadow_run=functools.partial(start, version) if start is not None else None,
            interval_s=self._interval_s,
        )
