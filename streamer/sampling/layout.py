"""Where things lie in a bucket or folder of samples. Pure; the reading side is ``streamer.datasets``.

A key depends only on the day of capture, the stream and the content, never on when it is stored: storing
again writes the same bytes to the same place.
"""

from __future__ import annotations

import time

#: First part of every key; rises when the layout changes.
LAYOUT = "v1"


def image_key(stream: str, captured_at: float, sha256: str, extension: str) -> str:
    """Return the key of a picture; ``captured_at`` is unix seconds, its day is taken in UTC."""
    day = time.strftime("%Y-%m-%d", time.gmtime(captured_at))
    return f"{LAYOUT}/images/dt={day}/stream={stream}/{sha256}.{extension}"


def sidecar_key(key: str) -> str:
    """Return the key of the description of the picture at ``key``; written last, it says: complete."""
    return key.replace("/images/", "/samples/", 1).rpartition(".")[0] + ".json"
