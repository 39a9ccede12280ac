"""Bounds what a client's data channels may have waiting for missing parts, for `aiortc_adapter`.

aiortc keeps every part of an unfinished message, walks all of them for each that comes, and does not hold the
sender to the window that it advertises: parts without an end would take all memory and all time of the loop.
"""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("streamer.webrtc.inbound_budget")

#: The largest message that our answer allows, four times a control message.
MOST_BYTES = 256 << 10
#: Parts of unfinished messages; 256 KiB are 230 parts of the size that all known senders use.
MOST_PARTS = 512
#: Streams that have carried something; a client needs two.
MOST_STREAMS = 64
#: Parts received out of order, each of which is sorted whenever another one comes.
MOST_MISORDERED = 1024


class InboundBudget:
    """Stands before the receiver of one SCTP association; ends it when the client goes beyond the budget."""

    def __init__(self, association: Any) -> None:
        """``association`` is an aiortc RTCSctpTransport; nothing was received by it yet."""
        self._association = association
        self._receive = association._receive_data_chunk
        self._window_bytes: int = association._advertised_rwnd
        self._ended = False
        association._receive_data_chunk = self.receive

    async def receive(self, chunk: Any) -> None:
        """Take one part, or end the association."""
        if self._ended:
            return
        if self._is_exceeded(len(chunk.user_data)):
            self._ended = True
            log.info("a client's data channels are closed: more waits in them than a message may have")
            await self._association._abort()
            # Nobody reads what was kept for it.
            self._association._inbound_streams.clear()
            self._association._sack_misordered.clear()
            return
        await self._receive(chunk)

    def _is_exceeded(self, size_bytes: int) -> bool:
        association = self._association
        streams = association._inbound_streams
        return bool(
            self._window_bytes - association._advertised_rwnd + size_bytes > MOST_BYTES
            or len(streams) > MOST_STREAMS
            or len(association._sack_misordered) > MOST_MISORDERED
            or sum(len(stream.reassembly) for stream in streams.values()) > MOST_PARTS
        )
