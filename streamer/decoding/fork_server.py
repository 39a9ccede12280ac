"""Runs as the fork server: loads the libraries of a decoder once, then forks decoders for its worker.

A fork takes milliseconds and shares the libraries' memory; a fresh start takes a third of a second. The fork
server itself never reads untrusted bytes.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from inference.ipc.group_signals import LEFT_TO_SUPERVISOR, die_with_parent
from streamer.decoding.sandbox import close_descriptors

log = logging.getLogger("streamer.decoding")

#: Signals that this process ignores: the worker ends it by closing the socket.
_IGNORED = LEFT_TO_SUPERVISOR | {signal.SIGTERM}
_MAX_MESSAGE_BYTES = 4096
#: Descriptors per request: channel, input memory, status page, and the memory for decoded frames.
_MAX_DESCRIPTORS = 4
#: The function that a fork runs. It gets the request and its descriptors, and returns when its work is done.
Run = Callable[[Mapping[str, Any], list[int]], None]


class ForkServer:
    """Serves one worker over ``control`` until the worker closes it.

    Each fork calls ``run`` and exits when that returns.
    """

    def __init__(self, control: socket.socket, run: Run) -> None:
        self._control = control
        self._run = run
        #: Key of each running decoder, by process id.
        self._keys: dict[int, int] = {}

    def run(self) -> None:
        """Serve requests; the answer to each is the process id and a pidfd of a new decoder."""
        signal.signal(signal.SIGCHLD, self._reap)
        while True:
            try:
                data, ancillary, _, _ = self._control.recvmsg(
                    _MAX_MESSAGE_BYTES, socket.CMSG_SPACE(_MAX_DESCRIPTORS * 4)
                )
            except ConnectionError:  # the worker has died before it has read all reports
                return
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
                _become_decoder(self._run, request, descriptors, parent)
            self._keys[pid] = request["key"]
            watch = os.pidfd_open(pid)
            message = json.dumps({"key": request["key"], "pid": pid}).encode()
            with contextlib.suppress(ConnectionError):  # then the next read ends the server
                socket.send_fds(self._control, [message], [watch])
        for descriptor in (watch, *descriptors):
            os.close(descriptor)

    def _reap(self, _number: int, _frame: object) -> None:
        """Report to the worker how decoders ended; their pidfds show it only that they ended."""
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
def _blocked(number: signal.Signals) -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _become_decoder(run: Run, request: dict[str, Any], descriptors: list[int], parent: int) -> None:
    """Run a decoder in this new process, and exit when it ends; never return."""
    code = 70
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        close_descriptors(set(descriptors))
        run(request, descriptors)
        code = 0
    except ConnectionError:  # the worker has died while the decoder answered
        code = 0
    except BaseException:
        log.exception("a decoder process failed")
    finally:
        # Skip the interpreter's clean-up, because it would act on state that was copied from the parent.
        os._exit(code)


def serve(run: Run) -> int:
    """Run a fork server; the command-line arguments are CONTROL_FD PARENT_PID. Returns the exit code."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    # Pages that the garbage collector does not touch stay shared with the decoders.
    gc.collect()
    gc.freeze()
    ForkServer(control, run).run()
    return 0
