"""Makes connections: tries, backs off, and knows when to give up. The stream asks it for each new link."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from typing import Any

import aiohttp

from streamer.client.address import Address
from streamer.client.connection import Link
from streamer.client.errors import ConnectionFailed
from streamer.client.options import Options
from streamer.client.state import Phase, State, Watcher
from streamer.core.backoff import Backoff


class Dialer:
    """Connects to one address. ``report`` is told of every try."""

    def __init__(self, address: Address, options: Options, report: Watcher) -> None:
        self.backoff = Backoff()
        self._address = address
        self._options = options
        self._tls: ssl.SSLContext | bool = options.tls.context()
        self._report = report

    async def connect(self, session: aiohttp.ClientSession, hello: dict[str, Any]) -> Link:
        """Return an open link.

        Raises ConnectionFailed after ``give_up_after_s``; Rejected and BadInput at once.
        """
        patience_s = self._options.give_up_after_s
        give_up_at = math.inf if patience_s is None else time.monotonic() + patience_s
        while True:
            self._report(State(Phase.CONNECTING, self._address.shown))
            try:
                return await Link.open(
                    session,
                    self._address,
                    hello,
                    tls=self._tls,
                    timeout_s=self._options.connect_timeout_s,
                )
            except ConnectionFailed as error:
                await self.pause(error, give_up_at)

    async def pause(self, error: ConnectionFailed, give_up_at: float = math.inf) -> None:
        """Wait as long as the server asked, else with jitter. Raises ``error`` when patience ends."""
        delay_s = self.backoff.next_s(error.retry_after_s)
        if self._options.give_up_after_s == 0 or time.monotonic() + delay_s > give_up_at:
            raise error
        self._report(State(Phase.WAITING, str(error), retry_s=delay_s))
        await asyncio.sleep(delay_s)
