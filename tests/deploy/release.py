"""Runs replicas of one release on this machine as each other's peers; a test can end and restart them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from streamer.config.replica_addresses import Address
from tests.helpers.ports import free_ports
from tests.helpers.service import Service


class Release:
    """Runs replicas, numbered from 0; ``names`` holds the value of `X-Replica` of each.

    ``own`` holds settings of single replicas, ``strangers`` addresses among their peers that are none.
    """

    def __init__(
        self,
        model: Path,
        settings: dict[str, str],
        count: int = 2,
        *,
        own: Mapping[int, dict[str, str]] | None = None,
        strangers: Sequence[str] = (),
    ) -> None:
        self._own = own or {}
        self.ports = free_ports(count)
        self.names = [Address("127.0.0.1", port).name for port in self.ports]
        self._settings = {
            "MODEL_V1_PATH": str(model),
            "STREAM_MIN_FPS": "0",
            "SAMPLING": "0",
            "REPLICA_PEERS": ",".join([*(f"127.0.0.1:{port}" for port in self.ports), *strangers]),
        } | settings
        #: None where a replica is not running.
        self.services: list[Service | None] = [None] * count

    def __enter__(self) -> Release:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the replicas that are not running, and wait until all are ready."""
        for number, port in enumerate(self.ports):
            if self.services[number] is None:
                own = {"PORT": str(port), "REPLICA_ADDRESS": f"127.0.0.1:{port}"}
                self.services[number] = Service(self._settings | own | self._own.get(number, {}))
        for service in self.services:
            if service is not None:
                service.wait_ready()

    def stop(self) -> None:
        """End all replicas."""
        for number in range(len(self.services)):
            self.end(number)

    def __getitem__(self, number: int) -> Service:
        service = self.services[number]
        assert service is not None, f"replica {number} is not running"
        return service

    def end(self, number: int, *, at_once: bool = False) -> int:
        """End a replica and return its exit code: with SIGTERM, or all its processes with SIGKILL."""
        service = self.services[number]
        if service is None:
            return 0
        if at_once and service.alive:
            processes = service.supervisor.children(recursive=True)
            service.supervisor.kill()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended with its supervisor
                    process.kill()
        self.services[number] = None
        return service.stop()
