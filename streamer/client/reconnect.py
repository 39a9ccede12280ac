"""Connects to one address, and connects again after a loss, with back-off between the attempts."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from typing import Any

import aiohttp

from streamer.client.address import Address
from streamer.client.connection import Connection
from streamer.client.errors import ConnectionFailed
from streamer.client.frame_stream import Phase, State, Watcher, reported_silence
from streamer.client.options import Options
from streamer.core.backoff import Backoff


class Connector:
    """Connects to one address and waits between attempts. ``report`` receives the state of each attempt."""

    def __init__(self, address: Address, options: Options, report: Watcher) -> None:
        self.backoff = Backoff()
        self._address = address
        self._options = options
        self._tls: ssl.SSLContext | bool = options.tls.context()
        self._report = report

    async def connect(self, session: aiohttp.ClientSession, hello: dict[str, Any]) -> Connection:
        """Return an open connection; repeat attempts that fail.

        Raises ConnectionFailed after ``give_up_after_s``, and Rejected or BadInput at the first such failure.
        """
        give_up_after_s = self._options.give_up_after_s
        give_up_at = math.inf if give_up_after_s is None else time.monotonic() + give_up_after_s
        while True:
            self._report(State(Phase.CONNECTING, self._address.shown))
            try:
                with reported_silence(self._report, self._address.shown):
                    return await Connection.open(
                        session,
                        self._address,
                        hello,
                        tls=self._tls,
                        timeout_s=self._options.connect_timeout_s,
                    )
            except ConnectionFailed as error:
                await self.pause(error, give_up_at)

    async def pause(self, error: ConnectionFailed, give_up_at: float = math.inf) -> None:
        """Wait before the next attempt: as long as the server asked, or else the back-off time.

        Raises ``error`` when the wait would end after ``give_up_at``.
        """
        delay_s = self.backoff.next_s(error.retry_after_s)
        if self._options.give_up_after_s == 0 or time.monotonic() + delay_s > give_up_at:
            raise error
        self._report(State(Phase.WAITING, str(error), retry_s=delay_s))
        await asyncio.sleep(delay_s)
