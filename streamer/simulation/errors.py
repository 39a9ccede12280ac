"""Defines the error of simulations, which names the wrong input."""

from __future__ import annotations


class BadScenario(ValueError):
    """Raised for input that cannot be simulated; names the input, what was found, and what is allowed."""
