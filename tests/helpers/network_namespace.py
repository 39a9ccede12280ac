"""A network of the test's own: one address, a way to everywhere that leads nowhere, and ears on that way."""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

T = TypeVar("T")

#: The only address of this machine in there, besides loopback.
OWN = "10.99.0.1"
_CLONE_NEWNET = 0x40000000
_ETH_P_IP = 0x0800
_UDP, _TCP = 17, 6
#: The loopback device is all that every kernel has; what is sent over it to other addresses is dropped.
_SETUP = (
    ("link", "set", "lo", "up"),
    ("address", "add", f"{OWN}/32", "dev", "lo"),
    ("route", "add", "default", "dev", "lo", "src", OWN),
)


class Ears:
    """Hears every IPv4 packet for another machine; made within the network."""

    def __init__(self) -> None:
        self._found: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._closing = False
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._socket.bind(("lo", _ETH_P_IP))
        self._socket.settimeout(0.1)
        # At once and all the time: the kernel keeps a few hundred packets, and most are of no interest.
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def heard(self) -> set[tuple[str, int]]:
        """Return where UDP and TCP packets went since the last call, as (address, port)."""
        time.sleep(0.3)
        with self._lock:
            found, self._found = self._found, set()
        return found

    def close(self) -> None:
        """Stop to listen."""
        self._closing = True
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._closing:
            try:
                packet = self._socket.recv(65535)
            except TimeoutError:
                continue
            to = socket.inet_ntoa(packet[16:20])
            header = 4 * (packet[0] & 0x0F)
            # Media sockets are bound to the machine's own address; a packet from there to 127.0.0.1 counts.
            inside = to == OWN or packet[12] == packet[16] == 127
            if packet[9] in (_UDP, _TCP) and not inside:
                with self._lock:
                    self._found.add((to, int.from_bytes(packet[header + 2 : header + 4], "big")))


@contextmanager
def narrow_link(kbit_per_s: int) -> Iterator[None]:
    """Let only so much pass in a second, all packets of this network together; skips where the kernel cannot.

    Call it within the network. Packets wait for 300 ms at most and are lost then, as in a modem.
    """
    limit = f"rate {kbit_per_s}kbit burst 3000 latency 300ms".split()
    for command in (
        ["ip", "link", "set", "lo", "mtu", "1500"],
        ["tc", "qdisc", "add", "dev", "lo", "root", "tbf", *limit],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot make the link narrow: {' '.join(command)}: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)


def in_own_network(act: Callable[[Ears], T]) -> T:
    """Return what ``act`` returns; it and the processes that it starts are in there. Skips without root."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip (Debian package iproute2), to make a network of its own")
    # Of one thread alone: the network of the other tests stays as it is.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(_in_own_network, act).result()


def _in_own_network(act: Callable[[Ears], T]) -> T:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        pytest.skip(f"cannot make a network of its own: {os.strerror(ctypes.get_errno())}")
    for arguments in _SETUP:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot make a network of its own: ip {' '.join(arguments)}: {done.stderr.strip()}")
    ears = Ears()
    try:
        return act(ears)
    finally:
        ears.close()
