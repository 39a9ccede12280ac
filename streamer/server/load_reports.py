"""Serves ``GET /replicas/load``, at which the replicas of a release ask each other how loaded they are."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp import web

from inference.ipc.shared_status import SharedStatus
from streamer.replicas.load_report import LoadReport
from streamer.scheduling.replica_load import ReplicaLoad
from streamer.scheduling.version_queue import VersionQueue
from streamer.server.health import Health


class LoadReports:
    """Makes the reports of this replica. ``workers`` is the number of its workers."""

    def __init__(
        self,
        shared_status: SharedStatus,
        workers: int,
        load: ReplicaLoad,
        queues: Mapping[str, VersionQueue],
        health: Health,
    ) -> None:
        self.shared_status = shared_status
        self._workers = workers
        self._load = load
        self._queues = queues
        self._health = health

    def load_of(self, version: str, key: int) -> float:
        """Return the demand of one stream, as a share of what this replica can run; 0 if it is unknown."""
        capacity_fps = self._load.capacity_fps(version)
        demand = self._queues[version].rates.demands.get(key)
        return demand.asked_fps / capacity_fps if demand is not None and capacity_fps else 0.0

    def own(self) -> LoadReport:
        """Return the load of this replica, all its workers together."""
        read = self.shared_status.read_worker
        capacities = (self._load.capacity_fps(version) for version in self._queues)
        return LoadReport(
            self._load.load,
            int(sum(max(0.0, read(number, "streams")) for number in range(self._workers))),
            # The first version stands for all of them when devices are compared.
            next((fps for fps in capacities if fps), 0.0),
            # A replica that refuses POSTs, restarts a process or drains takes no streams.
            available=self._health.status == "ok",
            can_move=time.monotonic() < self.shared_status.read("can_move_until"),
        )

    async def handle(self, _request: web.Request) -> web.Response:
        """Answer the report. The guard admits only requests from addresses of this release."""
        return web.json_response(self.own().to_state(), headers={"Cache-Control": "no-store"})
