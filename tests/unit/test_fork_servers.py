"""Fork servers end in silence when the process that they serve has died with their reports unread."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Iterator

import pytest

from inference.ipc.fork_server import serve_forks
from streamer.decoding.fork_server import ForkServer


@pytest.fixture
def control() -> Iterator[socket.socket]:
    """Yield the server's end of a socket whose other end was closed with a message unread."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(b"a report")
    ours.close()
    handler = signal.getsignal(signal.SIGCHLD)
    yield theirs
    signal.signal(signal.SIGCHLD, handler)
    gc.unfreeze()
    theirs.close()


def test_the_end_of_the_other_side_is_a_reset_connection(control: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        control.recv(16)


def test_the_server_of_decoders_returns(control: socket.socket) -> None:
    ForkServer(control, lambda _request, _descriptors: None).run()


def test_the_server_of_the_inference_process_returns(control: socket.socket) -> None:
    assert serve_forks(control, lambda: 1) == 0
