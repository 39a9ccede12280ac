"""A file server that injects faults at chosen bytes, and a forward proxy, for tests of downloads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_RANGE = re.compile(r"bytes=(\d+)-")


@dataclass(frozen=True, slots=True)
class Seen:
    """Holds the target and the headers of a received request."""

    target: str
    headers: Mapping[str, str]


@dataclass(slots=True)
class Fault:
    """Describes the fault that the server injects into one answer."""

    #: Status that the server sends instead of the file.
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    #: The server cuts the connection after this number of body bytes.
    cut_after: int | None = None
    #: The server stops sending after this number of body bytes, but keeps the connection open.
    silent_after: int | None = None
    #: The server sends the rest of the body, after `silent_after` bytes, once this is set; None: never.
    resume: asyncio.Event | None = None
    #: Bytes per second; None sends as fast as possible.
    rate: float | None = None
    #: Whether to send the body in chunks, without a Content-Length.
    chunked: bool = False
    #: Maximum number of bytes in the answer to a range request; HTTP allows servers to send less than asked.
    window: int | None = None


class _LoopbackServer:
    """Listens on a free loopback port and serves each connection in a task, until the ``async with`` ends."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # The end of a test cancels this task. Without `suppress`, asyncio would log that as an error.
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._serve(reader, writer)
        writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Server(_LoopbackServer):
    """Serves ``body`` on a free loopback port; each request consumes the first of ``faults``, if any."""

    def __init__(self, body: bytes = b"", *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self.body = body
        self.etag: str | None = '"one"'
        #: Whether the server answers range requests with a part of the file.
        self.ranges = True
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.bytes_sent = 0

    @property
    def url(self) -> str:
        """URL of the file."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/release/model.onnx"

    @property
    def sha256(self) -> str:
        """SHA-256 digest of the file, in hexadecimal."""
        return hashlib.sha256(self.body).hexdigest()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = await read_request(reader)
        self.seen.append(seen)
        await self._answer(seen, writer, self.faults.pop(0) if self.faults else Fault())

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter, fault: Fault) -> None:
        if fault.status is not None:
            extra = "".join(f"{name}: {value}\r\n" for name, value in fault.headers.items())
            writer.write(f"HTTP/1.1 {fault.status} Told\r\nContent-Length: 0\r\n{extra}\r\n".encode())
            await writer.drain()
            return
        start = self._start(seen.headers)
        if start >= len(self.body) > 0:
            writer.write(b"HTTP/1.1 416 Behind\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        data = self.body[start:]
        if start and fault.window is not None:
            data = data[: fault.window]
        lines = ["HTTP/1.1 206 Partial" if start else "HTTP/1.1 200 OK", "Connection: close"]
        if start:
            lines.append(f"Content-Range: bytes {start}-{start + len(data) - 1}/{len(self.body)}")
        if self.etag is not None:
            lines.append(f"ETag: {self.etag}")
        lines += [f"{name}: {value}" for name, value in fault.headers.items()]
        if fault.chunked:
            lines.append("Transfer-Encoding: chunked")
        else:
            lines.append(f"Content-Length: {len(data)}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await self._send(writer, data, fault)

    def _start(self, headers: Mapping[str, str]) -> int:
        """Return the offset at which the answer begins, following the range rules of RFC 9110."""
        match = _RANGE.fullmatch(headers.get("range", ""))
        if not match or not self.ranges:
            return 0
        condition = headers.get("if-range")
        return int(match[1]) if condition in (None, self.etag) else 0

    async def _send(self, writer: asyncio.StreamWriter, data: bytes, fault: Fault) -> None:
        cut = min(end for end in (fault.cut_after, fault.silent_after, len(data)) if end is not None)
        await self._send_pieces(writer, data[:cut], fault)
        if fault.silent_after is not None:
            if fault.resume is None:
                await asyncio.sleep(3600)
            else:
                await fault.resume.wait()
                await self._send_pieces(writer, data[cut:], fault)
        if fault.chunked and fault.cut_after is None:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    async def _send_pieces(self, writer: asyncio.StreamWriter, data: bytes, fault: Fault) -> None:
        step = max(1, int(fault.rate * 0.02)) if fault.rate else 1 << 16
        for begin in range(0, len(data), step):
            piece = data[begin : begin + step]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if fault.chunked else piece)
            await writer.drain()
            self.bytes_sent += len(piece)
            if fault.rate:
                await asyncio.sleep(0.02)


class ForwardProxy(_LoopbackServer):
    """An HTTP proxy that supports GET with absolute URLs and CONNECT."""

    def __init__(self) -> None:
        super().__init__()
        #: Request lines of all received requests.
        self.asked: list[str] = []
        #: Logins of those requests, by the header `Proxy-Authorization`; empty for none.
        self.logins: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n", 1)[0].decode()
        self.asked.append(line)
        login = re.search(rb"\r\nProxy-Authorization: *([^\r]*)", head, re.IGNORECASE)
        self.logins.append(login[1].decode() if login else "")
        method, target, _ = line.split(" ")
        host, _, port = (target if method == "CONNECT" else target.split("/")[2]).rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                back.write(head.replace(target.encode(), b"/" + target.split("/", 3)[3].encode(), 1))
            async with asyncio.TaskGroup() as group:
                group.create_task(_relay(reader, back))
                group.create_task(_relay(there, writer))
        finally:
            back.transport.abort()


async def _relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
        sink.write_eof()


async def read_request(reader: asyncio.StreamReader) -> Seen:
    """Read the head of a request and return its target and headers."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    return Seen(first.split(" ")[1], headers)
