"""Describes how loaded a replica is, in a form that replicas send each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Largest number that is accepted in a report; a larger one is a fault of its sender.
_MOST = 1e9


@dataclass(frozen=True, slots=True)
class LoadReport:
    """How loaded a replica is."""

    #: Demand of all its streams over what its device can run; 1 and more means that it is full.
    load: float
    streams: int
    #: Frames per second that its device can run; compares the devices of two replicas.
    capacity_fps: float
    #: Whether it is ready, and does not drain, so that it can take streams.
    available: bool
    #: Whether it has streams that it can ask to move.
    can_move: bool = True

    def to_state(self) -> dict[str, Any]:
        """Return the report in a form for JSON."""
        return {
            "load": round(self.load, 4),
            "streams": self.streams,
            "capacity_fps": round(self.capacity_fps, 2),
            "available": self.available,
            "can_move": self.can_move,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LoadReport:
        """Read the report of another replica. Raises TypeError or ValueError, which names the wrong field."""
        streams = _number(state, "streams")
        if streams != int(streams):
            raise ValueError(f"field `streams` is {streams:g}; allowed are whole numbers")
        return cls(
            _number(state, "load"),
            int(streams),
            _number(state, "capacity_fps"),
            _flag(state, "available"),
            _flag(state, "can_move"),
        )


def _flag(state: Mapping[str, Any], name: str) -> bool:
    value = state.get(name)
    if not isinstance(value, bool):
        raise TypeError(f"field `{name}` is {str(value)[:40]!r}; allowed are true and false")
    return value


def _number(state: Mapping[str, Any], name: str) -> float:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"field `{name}` is {str(value)[:40]!r}; allowed are numbers")
    if not 0 <= value <= _MOST:  # also true for NaN
        raise ValueError(f"field `{name}` is {str(value)[:40]}; allowed are 0 to {_MOST:g}")
    return float(value)
