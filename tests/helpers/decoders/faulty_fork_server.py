"""A fork server whose decoders fail on images of certain widths, as a bug in a native decoder would.

It replaces `streamer.decoding.decoder`; everything except `decode` is the production code.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamer.decoding import decoder, fork_server
from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageHeader

#: Image widths in pixels that trigger each fault.
SEGFAULT, HANG, SLEEP, HOARD, PROBE, STOP, GARBAGE, COMPUTE = range(101, 109)


def _faulty(data: bytes | memoryview, header: ImageHeader, **options: Any) -> Any:
    if header.width == SEGFAULT:
        ctypes.string_at(1)
    if header.width == HANG:
        while True:
            pass
    if header.width == SLEEP:  # waits for something that does not come
        time.sleep(60)
    if header.width == COMPUTE:  # uses some processor time, less than the limit, and is then decoded
        _compute(0.4)
    if header.width == STOP:
        signal.raise_signal(signal.SIGSTOP)
    if header.width == HOARD:
        return bytearray(2 << 30)
    if header.width == PROBE:
        raise RuntimeError(";".join(_forbidden()))
    if header.width == GARBAGE:
        raise _send_garbage()
    return decode(data, header, **options)


def _compute(cpu_s: float) -> None:
    until = time.thread_time() + cpu_s
    while time.thread_time() < until:
        pass


def _forbidden() -> list[str]:
    """Try operations that a decoder must not be able to do; return how each attempt ended."""
    attempts: dict[str, Callable[[], object]] = {
        "open": lambda: Path("/etc/hostname").read_bytes(),
        "write": lambda: Path("/tmp/decoder-was-here").write_bytes(b""),  # noqa: S108 - must fail
        "list": lambda: list(Path("/").iterdir()),
        "socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "unix": lambda: socket.socketpair(),
        "exec": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606 - must fail
        "fork": lambda: os.fork(),
        "kill": lambda: os.kill(os.getppid(), 0),
        "ptrace": lambda: _raw(101),
        "mount": lambda: _raw(165),
        "executable": lambda: _map_executable(),
        "pidfd": lambda: os.pidfd_open(os.getppid()),
        "limit": lambda: _raise_limit(),
    }
    ends = []
    for name, attempt in attempts.items():
        try:
            attempt()
        except (OSError, ValueError) as error:
            ends.append(f"{name}={type(error).__name__}")
        else:
            ends.append(f"{name}=ALLOWED")
    return ends


def _raw(number: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, 0, 0, 0) == -1:
        raise OSError(ctypes.get_errno(), "refused")


def _map_executable() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    if libc.mmap(None, 4096, 7, 0x22, -1, 0) == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "refused")


def _raise_limit() -> None:
    import resource  # noqa: PLC0415 - loaded by the decoder before

    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))


def _send_garbage() -> Exception:
    libc = ctypes.CDLL(None)
    for number in range(32):  # one of these descriptors is the channel
        libc.send(number, b"\xff" * 40, 40, 0)
    return RuntimeError("sent garbage")


decoder.decode = _faulty  # type: ignore[attr-defined]

if __name__ == "__main__":
    sys.exit(fork_server.serve(decoder.run))
