"""The fork server: imports the decoders' libraries once, and forks decoder processes as its worker asks.

A fork takes milliseconds and shares the libraries' memory, where a fresh start takes a third of a second. It
sees no foreign bytes itself.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import gc
import json
import logging
import mmap
import os
import signal
import socket
import sys
from typing import Any

from inference.ring import FrameRing
from streamer.decoding.decoder import Decoder, Supplies
from streamer.decoding.sandbox import close_descriptors
from streamer.decoding.status_page import StatusPage

log = logging.getLogger("streamer.decoding")

_PR_SET_PDEATHSIG = 1
#: What a terminal or a shell sends to a whole group. The worker ends this process by closing the socket.
_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGIO,
    signal.SIGPWR,
)
_MAX_MESSAGE_BYTES = 4096
#: Channel, input memory, status page, and the frame ring where there is one.
_MAX_DESCRIPTORS = 4


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process with its parent; ends it at once when that is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


class ForkServer:
    """Serves one worker over ``control`` until that is closed."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        #: Key of each decoder that runs, by its process id.
        self._keys: dict[int, int] = {}

    def run(self) -> None:
        """Take requests; each is answered by the process id and a pidfd of a new decoder."""
        signal.signal(signal.SIGCHLD, self._reap)
        while True:
            data, ancillary, _, _ = self._control.recvmsg(
                _MAX_MESSAGE_BYTES, socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)
            )
            if not data:
                return
            descriptors = array.array("i")
            for _, _, payload in ancillary:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
            self._fork(json.loads(data), list(descriptors))

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> None:
        parent = os.getpid()
        with _blocked(signal.SIGCHLD):
            pid = os.fork()
            if pid == 0:
                _become_decoder(request, descriptors, parent)
            self._keys[pid] = request["key"]
            watch = os.pidfd_open(pid)
            message = json.dumps({"key": request["key"], "pid": pid}).encode()
            socket.send_fds(self._control, [message], [watch])
        for descriptor in (watch, *descriptors):
            os.close(descriptor)

    def _reap(self, _number: int, _frame: object) -> None:
        """Tell how decoders ended; the worker knows by their pidfd that they did."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                code = os.waitstatus_to_exitcode(status)
                message = json.dumps({"key": self._keys.pop(pid, 0), "ended": pid, "code": code})
                with contextlib.suppress(OSError):
                    self._control.send(message.encode(), socket.MSG_DONTWAIT)


@contextlib.contextmanager
def _blocked(number: signal.Signals) -> Any:
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _become_decoder(request: dict[str, Any], descriptors: list[int], parent: int) -> None:
    """Run a decoder in this new process, and end with it; never returns."""
    code = 70
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        close_descriptors(set(descriptors))
        channel, arena, page, *ring = descriptors
        frames = FrameRing.attach(ring[0], request["slots"], request["slot_bytes"]) if ring else None
        supplies = Supplies(
            key=request["key"],
            index=request["index"],
            channel=socket.socket(fileno=channel),
            arena=mmap.mmap(arena, 0, prot=mmap.PROT_READ),
            ring=frames,
            page=StatusPage(page),
            memory_bytes=request["memory_bytes"],
        )
        Decoder(supplies).run()
        code = 0
    except BaseException:
        log.exception("a decoder process failed")
    finally:
        # Without the interpreter's clean-up: it belongs to the parent's image of this process.
        os._exit(code)


def main() -> int:
    """Run as ``python -m streamer.decoding.fork_server CONTROL_FD PARENT_PID``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # Pages that no collector touches stay shared with the decoders.
    gc.collect()
    gc.freeze()
    ForkServer(control).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
