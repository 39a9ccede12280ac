"""Draws the frames that run on two versions, by a hash, so that nothing but the share decides. Pure."""

from __future__ import annotations

import hashlib

#: Number of consecutive frames of a stream that are drawn together, so that boxes can be followed from one to
#: the next.
NEIGHBOURS = 2
_WHOLE = 1 << 64


def hash_name(name: str) -> str:
    """Return the name of a stream as 16 hexadecimal digits, the same in every replica."""
    return hashlib.blake2b(name.encode(), digest_size=8, person=b"pair-stream").hexdigest()


def is_drawn(stream: str, seq: int, share: float) -> bool:
    """Return whether frame ``seq`` of a stream is among the ``share`` (0 to 1) of frames that are drawn.

    The answer is the same in every process and after every restart. A frame that is drawn at some share is
    also drawn at every larger one.
    """
    if share <= 0:
        return False
    group = f"{stream}:{seq // NEIGHBOURS}".encode()
    digest = hashlib.blake2b(group, digest_size=8, person=b"pair-draw").digest()
    return int.from_bytes(digest, "big") < share * _WHOLE
