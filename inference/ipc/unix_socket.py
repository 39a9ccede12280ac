"""Makes the sockets through which workers connect to another process of the replica.

The supervisor keeps each listening socket open, so its address outlives every process that accepts on it. A
worker that reconnects after a crash waits in the backlog until the next process accepts.
"""

from __future__ import annotations

import os
import socket
import struct

_UCRED = struct.Struct("3i")
#: Size of the buffers of a socket. They hold a result for each slot of a worker, so results rarely wait.
SOCKET_BUFFER_BYTES = 1 << 20


def listen(kind: int = socket.SOCK_SEQPACKET) -> socket.socket:
    """Return a listening socket with an abstract name from the kernel, which needs no clean-up."""
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    # An empty address makes Linux choose a free abstract name.
    listener.bind("")
    listener.listen(64)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of a socket as text for a command line argument."""
    name = listener.getsockname()
    return (name if isinstance(name, bytes) else name.encode()).hex()


def connect(address: str, kind: int = socket.SOCK_SEQPACKET) -> socket.socket:
    """Return a non-blocking connection to ``address``, a text of :func:`address_of`, or raise OSError."""
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
    """Request larger buffers. The kernel may grant less, which works, too."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)


def peer_pid(connection: socket.socket) -> int:
    """Return the id of the process that connected."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[0])


def is_own_user(connection: socket.socket) -> bool:
    """Return whether the peer runs as the same user. An abstract name has no file permissions."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return bool(_UCRED.unpack(credentials)[1] == os.geteuid())
