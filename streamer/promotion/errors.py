"""Lists the errors of a promotion."""

from __future__ import annotations


class PromotionError(Exception):
    """The root: the model is not promoted, and the message says why."""


class BadRequest(PromotionError):
    """An option or a setting cannot be used; the message names it, what was found, and what is allowed."""


class Worse(PromotionError):
    """The model is worse than the one that it would replace."""
