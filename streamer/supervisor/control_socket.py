"""Answers the requests of workers to the supervisor (`streamer.versions.requests`).

A connection is answered only if its peer is a worker: decoders and inference processes run native code on
bytes of strangers, and must not be able to change what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from inference.ipc import unix_socket
from streamer.versions.errors import SERVER_FAULT, ChangeRefused
from streamer.versions.requests import MAX_LINE_BYTES, pack_refusal, pack_result

log = logging.getLogger("streamer.supervisor")

#: Carries out the requests of one verb. Raises ChangeRefused.
Verb = Callable[[Mapping[str, Any]], Awaitable[Any]]
#: A request is one message that is sent at once, so it arrives within this time.
_REQUEST_S = 5.0


class ControlSocket:
    """Listens for workers. ``workers`` returns the process ids of those that run."""

    def __init__(self, workers: Callable[[], Collection[int]]) -> None:
        self._workers = workers
        self._listener = unix_socket.listen(socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._verbs: dict[str, Verb] = {}
        #: None until `start`.
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Address to which workers connect."""
        return unix_socket.address_of(self._listener)

    def add(self, verb: str, handler: Verb) -> None:
        """Have ``handler`` carry out the requests of a verb."""
        self._verbs[verb] = handler

    async def start(self) -> None:
        """Start answering."""
        self._server = await asyncio.start_unix_server(
            self._answer, sock=self._listener, limit=MAX_LINE_BYTES
        )

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        self._listener.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = writer.get_extra_info("socket")
            if unix_socket.peer_pid(peer) not in self._workers():
                log.error("a process that is no worker has connected to the supervisor and is not answered")
                return
            async with asyncio.timeout(_REQUEST_S):
                line = await reader.readuntil(b"\n")
            writer.write(await self._carry_out(line))
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the worker has gone; a change that it asked for was carried out or not, as the log says
        finally:
            with contextlib.suppress(OSError):
                writer.close()

    async def _carry_out(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            handler = self._verbs.get(request["verb"])
            if handler is None:
                raise ChangeRefused("unknown_verb", f"the supervisor does not know {request['verb']!r:.80}")  # noqa: TRY301 - one place answers
            return pack_result(await handler(request))
        except ChangeRefused as refused:
            return pack_refusal(refused)
        except Exception:
            # The supervisor must outlive every fault in a change.
            log.exception("a request of a worker failed")
            return pack_refusal(ChangeRefused(SERVER_FAULT, "the change failed; the log has the reason"))
