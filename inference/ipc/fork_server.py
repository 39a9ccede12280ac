"""Forks an inference process when the supervisor requests it; `forked_process` is the supervisor's side.

Starting Python and importing the libraries takes longer than loading a model. The fork server has already
done both when an inference process dies, so the next one only has to load the models. The fork server and its
forks share the memory of the libraries. The fork server reads no pixels and runs no model.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import struct
from collections.abc import Callable
from enum import IntEnum

from inference.ipc.group_signals import die_with_parent

#: Format of a message of the server: its kind, and the process id or the exit code.
MESSAGE = struct.Struct("<ii")
#: The only request that the supervisor sends.
FORK = b"f"


class Kind(IntEnum):
    """Kinds of messages of the fork server."""

    #: A process was forked. The message carries its process id and its pidfd.
    FORKED = 1
    #: The process has ended. The message carries its exit code, negative for a signal.
    ENDED = 2


def serve_forks(control: socket.socket, run: Callable[[], int]) -> int:
    """Fork a process for each request on ``control``, one at a time, and return the caller's exit code.

    Like ``fork``, it returns in every process: in a fork with the result of ``run``, and in the server when
    ``control`` is closed. No other thread may run when it is called.
    """
    server = os.getpid()
    # Pages that the garbage collector does not touch stay shared with the forks.
    gc.collect()
    gc.freeze()
    while _has_request(control):
        pid = os.fork()
        if pid == 0:
            control.close()
            die_with_parent(server)
            return run()
        watch = os.pidfd_open(pid)
        with contextlib.suppress(ConnectionError):  # then the next read ends the server
            socket.send_fds(control, [MESSAGE.pack(Kind.FORKED, pid)], [watch])
        os.close(watch)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(ConnectionError):
            control.send(MESSAGE.pack(Kind.ENDED, os.waitstatus_to_exitcode(status)))
    return 0


def _has_request(control: socket.socket) -> bool:
    """Wait for a request; return False when the supervisor has closed the socket or has died."""
    try:
        return bool(control.recv(len(FORK)))
    except ConnectionError:  # it had not read all reports
        return False
