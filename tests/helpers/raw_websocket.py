"""A WebSocket client that sends exactly the given bytes, for messages that no correct client sends."""

from __future__ import annotations

import socket
import struct
import time
from types import TracebackType

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_MASK = b"\x37\xfa\x21\x3d"
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: int | None = None,
    form: int | None = None,
) -> bytes:
    """Return one frame, whose header may be wrong on purpose.

    ``length`` is the declared length of the payload, ``form`` the width of that field: 7, 16 or 64 bits. By
    default both fit the payload.
    """
    claimed = len(payload) if length is None else length
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    bit = 0x80 if masked else 0
    width = form or (7 if claimed < 126 else 16 if claimed < 1 << 16 else 64)
    if width == 7:
        head = struct.pack(">BB", first, bit | claimed)
    elif width == 16:
        head = struct.pack(">BBH", first, bit | 126, claimed)
    else:
        head = struct.pack(">BBQ", first, bit | 127, claimed)
    if not masked:
        return head + payload
    return head + _MASK + bytes(byte ^ _MASK[index % 4] for index, byte in enumerate(payload))


def close_frame(code: int | None, reason: bytes = b"") -> bytes:
    """Return a close frame; if ``code`` is None, the frame has no code."""
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason)


def upgrade(
    path: str = "/v1/stream", *, method: str = "GET", http: str = "1.1", **headers: str | None
) -> bytes:
    """Return an upgrade request. ``headers`` replace the defaults, `_` stands for `-`; None omits one."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": _KEY,
    }
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/{http}", *lines, "", ""]).encode()


class RawSocket:
    """Holds one TCP connection, and closes it at the end of the ``with`` block."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._timeout_s = timeout_s

    def __enter__(self) -> RawSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; ignore it if the other side has closed the connection."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(65_536)
        except (ConnectionResetError, TimeoutError):
            return False
        self._buffer += data
        return bool(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an HTTP answer.

        Header names are in lower case. The status is 0 if the connection ended before the headers did.
        """
        while b"\r\n\r\n" not in self._buffer:
            if not self._fill():
                return 0, {}, b""
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length and self._fill():
            pass
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return status, headers, body

    def receive_some(self) -> bool:
        """Wait for data and discard it; return False if the connection ended or the time limit passed."""
        self._buffer = b""
        return self._fill()

    def upgraded(self) -> dict[str, str]:
        """Upgrade the connection; return the headers of the answer."""
        self.send(upgrade())
        status, headers, body = self.answer()
        assert status == 101, (status, body)
        return headers

    def receive(self) -> tuple[int, bytes] | None:
        """Return opcode and payload of the next frame; None if the connection ended or timed out."""
        while len(self._buffer) < 2 or len(self._buffer) < self._frame_bytes():
            if not self._fill():
                return None
        size = self._frame_bytes()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        skip = {126: 4, 127: 10}.get(data[1] & 0x7F, 2)
        assert not data[1] & 0x80, "a server's frame is not masked"
        return data[0] & 0x0F, data[skip:]

    def _frame_bytes(self) -> int:
        short = self._buffer[1] & 0x7F
        if short < 126:
            return 2 + short
        width = 2 if short == 126 else 8
        if len(self._buffer) < 2 + width:
            return 2 + width
        return 2 + width + int.from_bytes(self._buffer[2 : 2 + width], "big")

    def until(self, opcode: int) -> bytes | None:
        """Return the payload of the next frame with this opcode; None if none arrives."""
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            received = self.receive()
            if received is None or received[0] == opcode:
                return None if received is None else received[1]
        return None

    def close_code(self) -> int | None:
        """Return the server's close code; 1005 if the frame has none, None if there is no close frame."""
        payload = self.until(CLOSE)
        if payload is None:
            return None
        return int.from_bytes(payload[:2], "big") if payload else 1005
