"""Clients over WebRTC that check that each answer belongs to them; each video has its own colours."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import av

from tests.faults.nonce import SIDE_PX, VIDEO_LEVELS, Nonce, read_video_box
from tests.faults.nonce_clients import Account
from tests.helpers.load import End
from tests.helpers.webrtc_client import Track, WebrtcClient

#: Time limit for a session of these tests to connect.
_CONNECT_S = 60.0
_32_BITS = 0xFFFFFFFF


class NonceTrack(Track):
    """Encodes its client's number and a counter in every frame, and stores the counter of each timestamp."""

    def __init__(self, client: int, *, fps: float, side_px: int = SIDE_PX) -> None:
        super().__init__(lambda number: Nonce(client, number).pixels(side_px), fps)
        #: Maps a 32-bit timestamp of the media clock to the counter that was shown.
        self.shown: dict[int, int] = {}

    async def recv(self) -> av.VideoFrame:
        """Return the next frame when it is due."""
        frame = await super().recv()
        assert frame.pts is not None
        self.shown[frame.pts & _32_BITS] = (self.number - 1) % VIDEO_LEVELS
        return frame


class NonceVideo:
    """One session over WebRTC, with the same interface as the other clients."""

    def __init__(self, client: int, *, fps: float = 5.0) -> None:
        self.account = Account()
        self._number = client
        self._track = NonceTrack(client, fps=fps)
        self._messages: list[dict[str, Any]] = []

    @property
    def results(self) -> int:
        """Number of results so far."""
        return sum(message["type"] == "result" for message in self._messages)

    async def run(self, url: str, until: End) -> Account:
        """Send until ``until``; return the account."""
        account = self.account
        async with asyncio.timeout(_CONNECT_S):
            client = await WebrtcClient(url, track=self._track).__aenter__()
        self._messages = client.messages
        try:
            while not until.passed:
                await asyncio.sleep(0.05)
            account.closed += (await client.state())["state"] == "ended"
        finally:
            await client.close()
        account.sent = self._track.number
        results = [message for message in client.messages if message["type"] == "result"]
        account.results = len(results)
        account.surplus = len(results) - len({message["seq"] for message in results})
        account.wrong = len(results) - self._own(results)
        for message in client.of_type("drop"):
            account.drops[message["reason"]] += message["to"] - message["from"] + 1
        for message in client.of_type("error"):
            account.errors[message["code"]] += "seq" in message
        return account

    def _own(self, results: list[dict[str, Any]]) -> int:
        """Return how many results have a box of the frame of this client that their timestamp identifies.

        The sender adds a random offset to all timestamps; the offset that fits most results is assumed.
        """
        seen = [
            (result["rtp"], read_video_box(box, SIDE_PX)) for result in results for box in result["boxes"]
        ]
        own = [(rtp, nonce.counter) for rtp, nonce in seen if nonce.client == self._number]
        shown = list(self._track.shown.items())
        added: Counter[int] = Counter()
        for rtp, counter in own:
            added.update((rtp - at) & _32_BITS for at, each in shown if each == counter)
        if not added:
            return 0
        (origin, _), *_ = added.most_common(1)
        # The encoder rounds timestamps.
        return sum(
            any(counter == each and (rtp - origin - at + 1) & _32_BITS <= 2 for at, each in shown)
            for rtp, counter in own
        )
