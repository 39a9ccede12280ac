"""Starts the worker's fork server, requests decoder processes from it, and receives how they ended."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

log = logging.getLogger("streamer.decoding")

#: Module that is run as the fork server of image decoders.
FORK_SERVER = "streamer.decoding.decoder"
#: The same for image decoders that also read codes.
READING_FORK_SERVER = "streamer.decoding.reading_decoder"
_MAX_MESSAGE_BYTES = 4096
#: Minimum seconds between two starts of a fork server that keeps dying.
_RESTART_S = 1.0
#: The only environment variables that decoders get; none of them is secret.
_PASSED = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "TZ", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
_PASSED_PREFIXES = ("MALLOC_", "OPENCV_", "OMP_", "OPENBLAS_", "PYTHON", "LD_")


class Events(Protocol):
    """Callbacks for events of the fork server; all are called on the event loop."""

    def forked(self, key: int, pid: int, watch: int) -> None:
        """Handle the start of the decoder with this key; ``watch`` is its pidfd, which the callee owns."""

    def ended(self, key: int, code: int | None) -> None:
        """Handle the end of a decoder with this exit code: negative for a signal, None if unknown."""

    def server_lost(self) -> None:
        """Handle the death of the fork server and all its decoders; another server will be started."""

    def server_started(self) -> None:
        """Handle the start of a new fork server, which takes requests now."""


def decoder_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``environment`` that a decoder may see."""
    return {
        name: text
        for name, text in environment.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }


def start_fork_server(module: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start ``module`` as a fork server; return the process and the socket for requests to it.

    Raises OSError when no process can be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
            pass_fds=(theirs.fileno(),),
            env=decoder_environment(os.environ),
            stdin=subprocess.DEVNULL,
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


class ForkClient:
    """Runs one fork server at a time.

    Call ``start()``, then ``fork()`` any number of times, finally ``close()``.
    """

    def __init__(self, events: Events, module: str = FORK_SERVER) -> None:
        self._events = events
        self._module = module
        self._loop: asyncio.AbstractEventLoop | None = None
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._closed = False

    @property
    def running(self) -> bool:
        """Whether requests can be made."""
        return self._control is not None

    @property
    def pid(self) -> int | None:
        """Process id of the fork server; None before the first start."""
        return self._process.pid if self._process is not None else None

    @property
    def age_s(self) -> float:
        """Seconds since the server was started."""
        return time.monotonic() - self._started_at

    def start(self) -> None:
        """Start a server, which accepts requests at once and serves them when its libraries are loaded.

        Raises OSError if no process can be started.
        """
        loop = asyncio.get_running_loop()
        self._process, ours = start_fork_server(self._module)
        ours.setblocking(False)
        self._loop, self._control, self._started_at = loop, ours, time.monotonic()
        loop.add_reader(ours.fileno(), self._read)

    def fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Request a decoder. Its descriptors are copied; the caller keeps its own."""
        if self._control is None:
            return
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(descriptors))
        except OSError as error:
            log.error("the fork server takes no requests: %s", error)  # noqa: TRY400 - says it all
            self.kill()

    def kill(self) -> None:
        """Kill a server that does not answer; the kernel then ends its decoders."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """End the server and its decoders."""
        self._closed = True
        self._forget()
        if self._process is not None:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)

    def _forget(self) -> None:
        if self._control is not None and self._loop is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None

    def _read(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            while True:
                data, ancillary, _, _ = control.recvmsg(_MAX_MESSAGE_BYTES, socket.CMSG_SPACE(4))
                if not data:
                    break
                descriptors = array.array("i")
                for _, _, payload in ancillary:
                    descriptors.frombytes(payload[:4])
                self._receive_events(json.loads(data), list(descriptors))
        except BlockingIOError:
            return
        except OSError:
            pass
        self._lost()

    def _receive_events(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if "ended" in message:
            self._events.ended(message["key"], message["code"])
        elif descriptors:
            self._events.forked(message["key"], message["pid"], descriptors[0])

    def _lost(self) -> None:
        self._forget()
        self.kill()
        if self._process is not None:
            code = self._process.wait()
            log.error("the fork server of the decoders ended with code %d; it is started again", code)
        self._events.server_lost()
        loop = self._loop
        if loop is not None:
            delay_s = max(0.0, _RESTART_S - (time.monotonic() - self._started_at))
            loop.call_later(delay_s, self._restart)

    def _restart(self) -> None:
        if self._closed:
            return
        try:
            self.start()
        except OSError as error:
            log.error("no fork server for decoders can be started: %s", error)  # noqa: TRY400 - says it all
            if self._loop is not None:
                self._loop.call_later(_RESTART_S, self._restart)
            return
        self._events.server_started()
