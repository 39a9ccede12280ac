"""Chooses ports that nobody else gets by chance between the choice and their use."""

from __future__ import annotations

import contextlib
import random
import socket

#: Ports below those that Linux gives to outgoing connections and to sockets that are bound to port 0.
_PORTS = range(10_000, 32_000)


def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> list[int]:
    """Return ports of the loopback interface that follow each other and are not in use."""
    chance = random.SystemRandom()
    while True:
        first = chance.choice(_PORTS[:-count])
        with contextlib.ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probe = probes.enter_context(socket.socket(socket.AF_INET, kind))
                    probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return list(range(first, first + count))


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return one port of the loopback interface that is not in use."""
    return free_ports(1, kind)[0]
