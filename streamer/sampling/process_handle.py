"""Starts and stops the sampling process, and sends requests to it.

Requests use the same socket as candidates. The highest bit of a message's length marks a request.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgpack

from inference.ipc import unix_socket
from inference.ipc.child_process import ChildProcess
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import Presence, SharedStatus
from streamer.config.child_environment import ChildEnvironment
from streamer.config.settings import Settings

REQUEST_BIT = 1 << 31
#: Largest response that is accepted. Evidently's report has 4 to 7 MB.
MAX_RESPONSE_BYTES = 64 << 20


class SamplingProcessUnavailable(Exception):
    """The sampling process cannot be reached or does not respond in time."""


async def call(address: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Send a request to the sampling process and return its response. Raises SamplingProcessUnavailable."""
    writer = None
    try:
        async with asyncio.timeout(timeout_s):
            connection = unix_socket.connect(address, socket.SOCK_STREAM)
            reader, writer = await asyncio.open_unix_connection(sock=connection)
            text = await asyncio.to_thread(msgpack.packb, request)
            writer.write((len(text) | REQUEST_BIT).to_bytes(4, "little") + text)
            await writer.drain()
            size = int.from_bytes(await reader.readexactly(4), "little")
            if size > MAX_RESPONSE_BYTES:
                raise SamplingProcessUnavailable(f"the sampling process answers with {size} bytes")
            response: dict[str, Any] = msgpack.unpackb(await reader.readexactly(size))
            return response
    except TimeoutError:
        raise SamplingProcessUnavailable(
            f"the sampling process did not answer within {timeout_s:g} s"
        ) from None
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        raise SamplingProcessUnavailable(f"the sampling process cannot be reached: {error}") from error
    finally:
        if writer is not None:
            writer.close()


def pack_response(response: dict[str, Any]) -> bytes:
    """Return the bytes to send for a response: its length and its msgpack."""
    text: bytes = msgpack.packb(response)
    return len(text).to_bytes(4, "little") + text


class SamplingStatus(IntEnum):
    """Says whether samples are taken.

    The shared field ``sampling`` holds the number, and ``/health`` shows the name.
    """

    STARTING = 0
    ON = 1
    OFF = 2
    NO_SPOOL = 3


class SamplingProcessHandle:
    """Runs one sampling process at a time; none when sampling is off, and ``address`` is empty then."""

    def __init__(
        self, settings: Settings, shared_status: SharedStatus, descriptors: Sequence[int] = ()
    ) -> None:
        """Create the socket and the shared document; every started process also inherits ``descriptors``."""
        self._inherited = tuple(descriptors)
        self.shared_status = shared_status
        #: None when sampling is off.
        self._listener = unix_socket.listen(socket.SOCK_STREAM) if settings.sampling else None
        #: Shared memory in which the process publishes the drift status; it survives restarts of the process.
        self.drift_document = SharedDocument()
        self._process = ChildProcess("streamer.sampling.process")
        shared_status.post("sampling", SamplingStatus.STARTING if settings.sampling else SamplingStatus.OFF)

    @property
    def address(self) -> str:
        """Address to which workers connect. It stays the same when the process restarts."""
        return unix_socket.address_of(self._listener) if self._listener is not None else ""

    async def start(self, environment: ChildEnvironment, output: int | None = None) -> None:
        """Start a process with that environment, which writes its log to the descriptor ``output``."""
        if self._listener is None:
            raise RuntimeError("sampling is off")
        descriptors = (self._listener.fileno(), self.shared_status.fd, self.drift_document.fd)
        self.shared_status.post("sampling_beat", 0.0)
        self.shared_status.post("sampling_presence", Presence.STARTING)
        await self._process.start(
            [str(fd) for fd in descriptors],
            descriptors=(*descriptors, *environment.descriptors, *self._inherited),
            environment=environment.variables,
            output=output,
        )

    async def wait(self) -> int:
        """Wait for the process to end, and return its exit code, which is negative after a signal."""
        code = await self._process.wait()
        self.shared_status.post("sampling", SamplingStatus.STARTING)
        self.shared_status.post("sampling_presence", Presence.DOWN)
        return code

    @property
    def started_at(self) -> float:
        """Time of the last start, CLOCK_MONOTONIC."""
        return self._process.started_at

    @property
    def pid(self) -> int | None:
        """Process id, None when no process runs."""
        return self._process.pid

    def kill(self) -> None:
        """Kill the process if it runs."""
        self._process.send_signal(signal.SIGKILL)

    async def stop(self, patience_s: float) -> bool:
        """Terminate the process, and kill it after ``patience_s``; return False if it had to be killed."""
        if self.pid is not None:
            self.shared_status.post("ending", 1)
        return await self._process.stop(patience_s)

    def close(self) -> None:
        """Close the listening socket and the shared document."""
        if self._listener is not None:
            self._listener.close()
        self.drift_document.close()
