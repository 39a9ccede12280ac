"""Where workers find another process of the replica: a listening socket that the supervisor owns.

The supervisor keeps it open, so the address outlives every process that listens there: a worker that
reconnects after a crash waits in the backlog until the next one accepts.
"""

from __future__ import annotations

import os
import socket
import struct

_UCRED = struct.Struct("3i")
#: Room for as many results as a worker has slots, so that a reply hardly ever has to wait.
SOCKET_BUFFER_BYTES = 1 << 20


def listen(kind: int = socket.SOCK_SEQPACKET) -> socket.socket:
    """Return a listening socket with a name the kernel chose (abstract: nothing to clean up)."""
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    # An empty address makes Linux choose a free abstract name.
    listener.bind("")
    listener.listen(64)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the name as text that fits into a command line argument."""
    name = listener.getsockname()
    return (name if isinstance(name, bytes) else name.encode()).hex()


def connect(address: str, kind: int = socket.SOCK_SEQPACKET) -> socket.socket:
    """Return a non-blocking connection to :func:`address_of`. Raises OSError when nobody listens."""
    connection = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    try:
        enlarge(connection)
        connection.setblocking(False)
        connection.connect(bytes.fromhex(address))
    except OSError:
        connection.close()
        raise
    return connection


def enlarge(connection: socket.socket) -> None:
    """Ask for larger buffers; the kernel may grant less, and less works too."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)


def is_own_user(connection: socket.socket) -> bool:
    """Whether the peer runs as this user: an abstract name has no permissions of its own."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return bool(_UCRED.unpack(credentials)[1] == os.geteuid())
