"""Runs code in a network namespace whose default route leads nowhere, and records the packets it sends."""

from __future__ import annotations

import concurrent.futures
import ctypes
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import TypeVar

import pytest

T = TypeVar("T")

#: The only address of this machine in the namespace, besides loopback.
OWN = "10.99.0.1"
#: Where `PacketCapture` sends packets to itself: a port of an address for documentation (RFC 5737).
_PROBE = ("192.0.2.1", 9)
_CLONE_NEWNET = 0x40000000
_ETH_P_IP = 0x0800
_UDP, _TCP = 17, 6
#: The loopback device is the only one that every kernel has; packets sent over it to other addresses are
#: dropped.
_SETUP = (
    ("link", "set", "lo", "up"),
    ("address", "add", f"{OWN}/32", "dev", "lo"),
    ("route", "add", "default", "dev", "lo", "src", OWN),
)


class PacketCapture:
    """Records every IPv4 packet that is addressed to another machine. Create it within the namespace."""

    def __init__(self) -> None:
        self._found: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        #: Set when the thread has read a packet to `_PROBE`.
        self._probed = threading.Event()
        self._closing = False
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._socket.bind(("lo", _ETH_P_IP))
        self._socket.settimeout(0.1)
        # The thread reads all the time, because the kernel buffers only a few hundred packets and most are
        # irrelevant.
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def destinations(self, expected: Set[tuple[str, int]] = frozenset()) -> set[tuple[str, int]]:
        """Return the destinations of UDP and TCP packets since the last call, as (address, port).

        Wait until the ``expected`` ones are among them, for a minute at most. Call this within the namespace.
        """
        deadline = time.monotonic() + 60
        while True:
            # The kernel keeps the order of packets, so this one comes after all that were sent before.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.sendto(b"", _PROBE)
            self._probed.wait(60)
            self._probed.clear()
            with self._lock:
                if expected <= self._found or time.monotonic() > deadline:
                    found, self._found = self._found, set()
                    return found
            time.sleep(0.1)

    def close(self) -> None:
        """Stop recording."""
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
            # Media sockets are bound to the machine's own address, so a packet from there to 127.0.0.1 is
            # recorded as well.
            inside = to == OWN or packet[12] == packet[16] == 127
            destination = (to, int.from_bytes(packet[header + 2 : header + 4], "big"))
            if destination == _PROBE:
                self._probed.set()
            elif packet[9] in (_UDP, _TCP) and not inside:
                with self._lock:
                    self._found.add(destination)


@contextmanager
def narrow_link(kbit_per_s: int) -> Iterator[None]:
    """Limit the total rate of all packets in this namespace; skip the test if the kernel does not support it.

    Call this within the namespace. Packets wait for at most 300 ms and are lost after that, as in a modem.
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


def in_own_network(act: Callable[[PacketCapture], T]) -> T:
    """Run ``act`` and the processes it starts in a new namespace; return its result. Skip without root."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and ip (Debian package iproute2), to make a network of its own")
    # Only this thread enters the namespace; the network of other tests stays as it is.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(_in_own_network, act).result()


def _in_own_network(act: Callable[[PacketCapture], T]) -> T:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        pytest.skip(f"cannot make a network of its own: {os.strerror(ctypes.get_errno())}")
    for arguments in _SETUP:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot make a network of its own: ip {' '.join(arguments)}: {done.stderr.strip()}")
    capture = PacketCapture()
    try:
        return act(capture)
    finally:
        capture.close()
