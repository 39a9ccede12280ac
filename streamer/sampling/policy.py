"""What decides which frames become samples; made from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.config.settings import Settings

#: Rises when the meaning of a rule changes, so that samples of different rules can be told apart.
POLICY_VERSION = 1


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules and budgets; times in seconds."""

    #: Take frames with at least this uncertainty; 0 takes all, more than 1 none.
    threshold: float = 0.7
    #: Between the pictures of two samples of a stream.
    spacing_s: float = 10.0
    #: The best candidate of this time is taken.
    interval_s: float = 60.0
    #: One frame of a stream at random in this time on average; 0: none.
    random_every_s: float = 1800.0
    stream_per_hour: int = 20
    per_hour: int = 200
    per_day: int = 2000
    day_bytes: int = 500 << 20

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """Return what the settings say."""
        return cls(
            threshold=settings.uncertainty_threshold,
            spacing_s=settings.samples_spacing_s,
            interval_s=settings.samples_interval_s,
            random_every_s=settings.samples_random_every_s,
            stream_per_hour=settings.samples_stream_per_hour,
            per_hour=settings.samples_per_hour,
            per_day=settings.samples_per_day,
            day_bytes=settings.samples_day_bytes,
        )
