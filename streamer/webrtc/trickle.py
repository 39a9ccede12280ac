"""Candidates that come after the offer: as an SDP fragment (RFC 8840) or as browsers write them. Pure."""

from __future__ import annotations

from typing import Any

MAX_FRAGMENT_BYTES = 16 << 10


class BadFragment(ValueError):
    """The fragment or list of candidates is not what it must be."""


class RestartAsked(ValueError):
    """The fragment has other ICE credentials than the session: a restart, which is not done here."""


def read_fragment(text: str, ufrag: str) -> list[str]:
    """Return the candidates of an `application/trickle-ice-sdpfrag` body, as after `candidate:`.

    ``ufrag`` is the client's own, from its offer. Raises BadFragment or RestartAsked.
    """
    candidates = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith("a=candidate:"):
            candidates.append(line.removeprefix("a=candidate:"))
        elif line.startswith("a=ice-ufrag:") and line.removeprefix("a=ice-ufrag:").strip() != ufrag:
            raise RestartAsked("the fragment's ice-ufrag is not the one of the offer")
        elif line and (len(line) < 2 or line[1] != "="):
            raise BadFragment(f"a line is {line[:40]!r}; lines are 'x=value'")
    return candidates


def read_candidates(body: object) -> list[str]:
    """Return the candidates of ``{"candidate": …}`` or ``{"candidates": […]}``; each as a browser gives it.

    An empty candidate means that there are no more, and is none. Raises BadFragment naming the field.
    """
    if not isinstance(body, dict) or not body.keys() & {"candidate", "candidates"}:
        raise BadFragment("expected a map with `candidate` or `candidates`")
    entries: Any = body.get("candidates", [body.get("candidate")])
    if not isinstance(entries, list):
        raise BadFragment(f"field `candidates` is a {type(entries).__name__}; expected a list")
    found = []
    for index, entry in enumerate(entries):
        value = entry.get("candidate") if isinstance(entry, dict) else entry
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise BadFragment(f"field `candidates[{index}]` holds no text: {value!r:.60}")
        found.append(value.removeprefix("a=").removeprefix("candidate:"))
    return found
