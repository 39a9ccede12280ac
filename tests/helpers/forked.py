"""A fork server for tests of `ForkedProcess`; its first argument selects what its forks do."""

from __future__ import annotations

import signal
import socket
import sys
import time

from inference.ipc.fork_server import serve_forks
from inference.ipc.group_signals import settle


def run() -> int:
    """Return the first argument if it is a number, otherwise sleep; ``stubborn`` also ignores SIGTERM."""
    action = sys.argv[1]
    if action.isdigit():
        return int(action)
    time.sleep(60)
    return 0


def main() -> int:
    """Run as ``python -m tests.helpers.forked ACTION CONTROL_FD``."""
    if sys.argv[1] == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settle()
    return serve_forks(socket.socket(fileno=int(sys.argv[2])), run)


if __name__ == "__main__":
    sys.exit(main())
