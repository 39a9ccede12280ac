"""Bounds what a client may leave unfinished on its data channels, which aiortc keeps without a bound.

aiortc announces a receive window and does not enforce it, and for every datagram it walks all fragments that
wait for the rest of their message. The limits are those of control messages with room to spare; only
`stack.py`, which installs the limit, knows aiortc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Of messages that are not complete: a control message of the largest size, and another behind it.
MAX_UNFINISHED_BYTES = 256 << 10
#: Fragments of one SCTP stream that wait; browsers send some 1,200 bytes in each.
MAX_FRAGMENTS = 512
#: SCTP streams that were used. There are two channels, and browsers number theirs from 0 or 1.
MAX_SCTP_STREAMS = 64
#: Datagrams that came before one that is missing.
MAX_MISORDERED = 2048


def limit_inbound(association: Any, on_excess: Callable[[], object]) -> None:
    """Have aiortc's SCTP transport call ``on_excess`` once, and take nothing more, when a bound is passed."""
    receive = association._receive_data_chunk  # noqa: SLF001 - the part that aiortc has no setting for
    window_bytes = association._advertised_rwnd  # noqa: SLF001 - see above
    over = False

    async def receive_within_limits(chunk: Any) -> None:
        nonlocal over
        if over:
            return
        await receive(chunk)
        if _exceeds(association, window_bytes, chunk.stream_id):
            over = True
            on_excess()

    association._receive_data_chunk = receive_within_limits  # noqa: SLF001 - see above


def _exceeds(association: Any, window_bytes: int, stream_id: int) -> bool:
    """Whether a bound is passed; asked for every datagram, so in constant time."""
    streams = association._inbound_streams  # noqa: SLF001 - see above
    stream = streams.get(stream_id)
    return (
        window_bytes - association._advertised_rwnd > MAX_UNFINISHED_BYTES  # noqa: SLF001 - see above
        or len(streams) > MAX_SCTP_STREAMS
        or len(association._sack_misordered) > MAX_MISORDERED  # noqa: SLF001 - see above
        or (stream is not None and len(stream.reassembly) > MAX_FRAGMENTS)
    )
