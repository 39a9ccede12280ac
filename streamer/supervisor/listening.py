"""Opens the listening sockets, which outlive the workers that accept on them."""

from __future__ import annotations

import socket

from streamer.supervisor.failures import CannotStart

BACKLOG = 128


def listen(host: str, port: int, workers: int) -> list[socket.socket]:
    """Return one listening socket per worker, sharing the port.

    The supervisor owns them, so connections that arrive while a worker restarts wait in its backlog
    instead of being refused. Raises CannotStart when the address cannot be used.
    """
    try:
        family, kind, protocol, _, resolved = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if port:
            # Without SO_REUSEPORT first: another service on this port must be noticed, not shared with.
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(resolved)
        sockets: list[socket.socket] = []
        for _ in range(workers):
            listener = socket.socket(family, kind, protocol)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(sockets[0].getsockname() if sockets else resolved)
            listener.listen(BACKLOG)
            listener.set_inheritable(True)
            sockets.append(listener)
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another HOST or PORT"
        ) from error
    return sockets
