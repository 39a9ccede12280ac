"""Names of streams as they stand in keys: lower case letters, digits and hyphens. Pure."""

from __future__ import annotations

import re

#: What streams without a name of their own are called; they share one budget.
UNNAMED = "unnamed"
#: Pictures that were posted.
POSTED = "posted"
MAX_CHARS = 64

_OTHER = re.compile(r"[^a-z0-9]+")


def slug(name: str) -> str:
    """Return ``name`` fit for a key, 64 characters at most; ``unnamed`` when nothing of it can stay."""
    return _OTHER.sub("-", name.lower()).strip("-")[:MAX_CHARS].rstrip("-") or UNNAMED
