"""Takes pictures from `pending_frames` to the wire as `flow` allows. The stream runs one per connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from streamer.client.connection import Link, LinkLost
from streamer.client.encoder import PictureLimits, encode
from streamer.client.errors import BadInput
from streamer.client.flow import Flow, Sent
from streamer.client.options import Options
from streamer.client.pending_frames import Offer, Offers
from streamer.client.results import Outcome
from streamer.client.state import Bell
from streamer.protocol.wire import Frame


class Sender:
    """The sending half of a stream. ``emit`` receives outcomes of pictures that are not sent after all."""

    def __init__(
        self, flow: Flow, offers: Offers, bell: Bell, options: Options, emit: Callable[[list[Outcome]], None]
    ) -> None:
        self._flow = flow
        self._offers = offers
        self._bell = bell
        self._options = options
        self._emit = emit

    async def run(self, link: Link, limits: PictureLimits) -> None:
        """Send what is to be sent again, then what is offered, as the window allows."""
        with contextlib.suppress(LinkLost):
            while True:
                if self._flow.must_resend:
                    await self._wait_for_window()
                    if self._flow.must_resend:  # the last may have been answered meanwhile
                        await self._send_frame(link, self._flow.resending(time.monotonic()))
                    continue
                if self._flow.mode == "live":
                    await self._wait_for_window()
                offer = self._offers.next()
                if offer is None:
                    await self._bell.wait()
                elif await self._encode(offer, limits):
                    await self._wait_for_window()
                    if self._offers.current is offer:
                        await self._send_offer(link, offer)

    async def _wait_for_window(self) -> None:
        while self._flow.refusal(now := time.monotonic()) is not None:
            if self._flow.mode == "live" and self._flow.window == 0:
                # On hold for seconds, maybe: what is encoded already would be old by then.
                self._emit(self._offers.drop_current("window"))
            await self._bell.wait(self._flow.rate_wait_s(now))

    async def _encode(self, offer: Offer, limits: PictureLimits) -> bool:
        """Encode in a thread. Cancelled half-way, the picture stays the current one."""
        if offer.encoded is not None:
            return True
        try:
            offer.encoded = await asyncio.to_thread(
                encode,
                offer.picture,
                limits,
                quality=self._options.quality,
                max_side=self._options.max_side,
            )
        except BadInput as error:
            if self._offers.current is offer:
                self._emit([self._offers.fail("unreadable", str(error))])
            return False
        return self._offers.current is offer  # else it was let go meanwhile

    async def _send_offer(self, link: Link, offer: Offer) -> None:
        encoded = offer.encoded
        if encoded is None:
            raise RuntimeError("a picture is encoded before it is sent")
        frame = Sent(
            0, encoded.payload, encoded.codec, offer.captured_s, offer.tag, encoded.scale, encoded.size
        )
        self._offers.sent()
        self._flow.sending(frame, time.monotonic())
        self._bell.ring()
        await self._send_frame(link, frame)

    async def _send_frame(self, link: Link, frame: Sent) -> None:
        await link.send_frame(Frame(frame.codec, frame.seq, frame.ts_us, frame.payload))
