"""How often rows are taken and windows are judged; made from the settings."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Plan:
    """Times in seconds."""

    interval_s: float = 5.0
    window_s: float = 1800.0
    step_s: float = 600.0
    #: Chance of a hot window without drift, over all columns of a group.
    alpha: float = 0.001
    #: Samples taken because of one episode.
    samples: int = 20

    @classmethod
    def of(cls, settings: Settings) -> Plan:
        """Return what the settings say."""
        return cls(
            interval_s=settings.drift_sample_interval_s,
            window_s=settings.drift_window_s,
            step_s=settings.drift_step_s,
            alpha=settings.drift_alpha,
            samples=settings.drift_samples,
        )
