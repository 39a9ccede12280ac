"""Decides when to restart a process that has ended, and when to end the service and with which exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamer.core.backoff import Backoff

#: Exit codes of the service. Further ones are 2 for usage or configuration, 4 for a refused model, and 5 for
#: an unavailable device.
EXIT_CANNOT_START = 3
EXIT_KEEPS_DYING = 6


class CannotStart(Exception):
    """The service cannot start or continue; the text is shown to the person who started it."""

    def __init__(self, text: str, exit_code: int = EXIT_CANNOT_START) -> None:
        super().__init__(text)
        self.exit_code = exit_code


#: Longest delay before the second restart in a row, and before any later one. `Backoff` doubles the longest
#: delay in between and draws each delay at random.
FIRST_S = 0.1
MAX_S = 30.0
#: A process that ran for at least this time is restarted without delay, and its earlier deaths are forgotten.
HEALTHY_AFTER_S = 60.0
#: The service gives up when a process dies more often than this without running for `HEALTHY_AFTER_S` in
#: between.
MAX_DEATHS = 20


@dataclass(slots=True)
class RestartPolicy:
    """Computes the delay before the next start of one process."""

    max_deaths: int = MAX_DEATHS
    _deaths: int = 0
    _backoff: Backoff = field(default_factory=lambda: Backoff(first_s=FIRST_S, max_s=MAX_S, least_s=None))

    def next_delay_s(self, lived_s: float) -> float:
        """Return the delay after a process that lived for ``lived_s``. Raises OverflowError at the limit."""
        if lived_s >= HEALTHY_AFTER_S:
            self._deaths = 0
            self._backoff.reset()
        self._deaths += 1
        if self._deaths > self.max_deaths:
            raise OverflowError(f"{self._deaths - 1} deaths in a row")
        # There is no delay after the first death, so that a single crash interrupts the streams only while
        # the new process loads.
        return 0.0 if self._deaths == 1 else self._backoff.next_s()


#: `LOOP_DEATHS` deaths within `LOOP_S` are a crash loop, in which the replica is ready only for moments.
LOOP_DEATHS = 5
LOOP_S = 60.0
#: A crash loop is over when no process has died for this time.
RECOVERED_AFTER_S = 10.0


@dataclass(slots=True)
class CrashLoop:
    """Detects that processes die so often that the replica should stay out of its balancer."""

    _deaths: list[float] = field(default_factory=list)

    def died(self, now: float) -> None:
        """Record a death at ``now``, CLOCK_MONOTONIC seconds."""
        self._deaths = [*self._deaths[1 - LOOP_DEATHS :], now]

    def is_active(self, now: float) -> bool:
        """Return whether a crash loop is going on at ``now``.

        It is if `LOOP_DEATHS` deaths occurred within `LOOP_S`, and the last one less than
        `RECOVERED_AFTER_S` ago.
        """
        if len(self._deaths) < LOOP_DEATHS:
            return False
        return self._deaths[-1] - self._deaths[0] < LOOP_S and now - self._deaths[-1] < RECOVERED_AFTER_S
