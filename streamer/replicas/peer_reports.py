"""Asks the other replicas of the release at intervals how loaded they are, and keeps the latest reports."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from typing import Any

import aiohttp
from aiohttp import hdrs

from streamer.config.replica_addresses import HOP_HEADER, Address, Replicas
from streamer.replicas.load_report import LoadReport
from streamer.replicas.rebalance_policy import STALE_S, PeerReport

log = logging.getLogger("streamer.rebalance")

#: Address at which a replica reports its load to the others.
LOAD_PATH = "/replicas/load"
#: Time in which a replica must have answered completely, and the size of the longest answer that is read.
ANSWER_S = 2.0
MOST_BYTES = 4 << 10
#: Most replicas that one process asks in a round. In larger releases it asks others each time.
MOST_ASKED = 16


class PeerReports:
    """Keeps the latest report of each replica. The owner calls :meth:`ask` regularly, and :meth:`close`."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._client: aiohttp.ClientSession | None = None
        #: Reports by the name of the replica.
        self.latest: dict[str, PeerReport] = {}
        #: Replicas whose last answer could not be used, so that the log has one line for each such time.
        self._failing: set[str] = set()

    async def ask(self) -> None:
        """Ask the other replicas. Reports of those that do not answer stay, and become too old."""
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST_ASKED, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            )
        others = await self._replicas.others()
        asked = random.sample(sorted(others), min(MOST_ASKED, len(others)))
        await asyncio.gather(*(self._ask_one(self._client, name, others[name]) for name in asked))
        now = time.monotonic()
        self.latest = {
            name: report
            for name, report in self.latest.items()
            if name in others and now - report.at <= STALE_S
        }
        self._failing &= others.keys()

    async def _ask_one(self, client: aiohttp.ClientSession, name: str, address: Address) -> None:
        headers = {HOP_HEADER: self._replicas.name, hdrs.ACCEPT: "application/json"}
        # The report describes a moment during the request; the earlier time makes it older, which is safe.
        begun = time.monotonic()
        try:
            async with client.get(address.url + LOAD_PATH, headers=headers, allow_redirects=False) as answer:
                load = LoadReport.from_state(await _read(answer))
        except (aiohttp.ClientError, TimeoutError, OSError, TypeError, ValueError, RecursionError) as error:
            self._failed(name, address, str(error) or type(error).__name__)
            return
        self.latest[name] = PeerReport(load, begun)
        self._failing.discard(name)

    def _failed(self, name: str, address: Address, why: str) -> None:
        if name not in self._failing:
            self._failing.add(name)
            log.info("replica %s does not report its load: %s", address.host, why[:200])

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()


async def _read(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    """Return the map in an answer. Raises TypeError or ValueError if it is another or too long an answer."""
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}")
    body = b""
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            raise ValueError(f"the answer has more than {MOST_BYTES} bytes")
    state = json.loads(body)
    if not isinstance(state, dict):
        raise TypeError("the answer is not a map")
    return state
