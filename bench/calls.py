"""Counts the calls of Python and C functions that one POST and one streamed frame cost a worker's event loop.

The application of a worker runs here with its decoders, against an inference process that answers at once and
finds nothing. The result is a JSON object with the number of calls for each. Unlike times, these counts are
the same on a busy machine, so a change that adds calls shows in them. Compare them with those of the version
before.

Run it with ``make bench BENCH=calls``.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from inference.core.detections import NO_BOXES
from inference.core.metric_setup import STORE_VARIABLE, name_process
from inference.core.metric_store import MetricStore
from inference.ipc import unix_socket, wire
from inference.ipc.engine_table import EngineTable
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import load_settings
from streamer.core.event_loop_selector import make_loop
from streamer.server.resources import Resources
from streamer.server.worker import make_runner
from tests.helpers.hostile_child import HANDSHAKE
from tests.helpers.media import images
from tests.helpers.raw_websocket import BINARY, TEXT, RawSocket, frame
from tests.helpers.wire_client import frame_message

#: Number of requests before counting starts, and number of requests that are counted.
WARM_UP, COUNTED = 20, 40


def receive(connection: socket.socket) -> bytes:
    """Return the next message; empty if the worker has closed the connection."""
    try:
        return connection.recv(wire.MAX_MESSAGE_BYTES)
    except ConnectionResetError:
        return b""


def answer_frames(listener: socket.socket) -> None:
    """Act as an inference process that finds nothing; return when the worker closes the connection."""
    connection, _ = listener.accept()
    with connection:
        for message in wire.pack_text(wire.Kind.HELLO, HANDSHAKE):
            connection.send(message)
        while data := receive(connection):
            if data[0] == wire.Kind.SUBMIT:
                number = wire.unpack_submit(data).request_id
                result = wire.Result(number, wire.Status.OK, NO_BOXES, 0.1, 2.0, 0.1, 1)
                connection.send(wire.pack_result(result))


def post(client: RawSocket, image: bytes) -> None:
    """POST one image until it is answered with boxes, because the worker may still be starting."""
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        client.send(head.encode() + image)
        if client.answer()[0] == 200:
            return
        time.sleep(0.1)
    raise TimeoutError("the worker has not answered with boxes")


def open_stream(client: RawSocket) -> Callable[[RawSocket, bytes], None]:
    """Open a stream; return a function that sends one frame over it and waits for its result."""
    client.upgraded()
    hello = {"type": "hello", "streams": [{"id": 0, "codec": "jpeg", "mode": "all"}]}
    client.send(frame(TEXT, json.dumps(hello).encode()))
    client.until(TEXT)
    last = 0

    def send(client: RawSocket, image: bytes) -> None:
        nonlocal last
        last += 1
        client.send(frame(BINARY, frame_message(last, image)))
        while (message := client.until(TEXT)) is not None:
            if json.loads(message).get("seq") == last:
                return
        raise ConnectionError(f"the worker has closed the stream: {client.close_code()}")

    return send


async def count(port: int, image: bytes) -> dict[str, float]:
    """Return the average number of calls per POST and per frame."""
    found = {}
    for name in ("POST", "frame"):
        with await asyncio.to_thread(RawSocket, port) as client:
            send = post if name == "POST" else await asyncio.to_thread(open_stream, client)
            await asyncio.to_thread(repeat, partial(send, client, image), WARM_UP)
            profile = cProfile.Profile()
            profile.enable()
            await asyncio.to_thread(repeat, partial(send, client, image), COUNTED)
            profile.disable()
        found[name] = round(sum(entry.callcount for entry in profile.getstats()) / COUNTED, 1)
    return found


def repeat(call: Callable[[], None], times: int) -> None:
    """Call a function several times."""
    for _ in range(times):
        call()


async def serve() -> dict[str, float]:
    """Run the application with its inference process and count."""
    with unix_socket.listen() as listener:
        return await serve_before(listener)


async def serve_before(listener: socket.socket) -> dict[str, float]:
    """Run the application against an inference process on that listener, and count."""
    threading.Thread(target=answer_frames, args=(listener,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as port:
        port.setblocking(False)
        document = SharedDocument()
        document.publish(EngineTable.of_one(unix_socket.address_of(listener)).to_json())
        resources = Resources(
            number=0,
            settings=load_settings(),
            metrics=WorkerMetrics(),
            shared_status=SharedStatus(),
            drift_page=SharedDocument(),
            engine_document=document,
            sampling_address="",
            metrics_dir=Path(folder),
        )
        runner, _ = await make_runner(resources, port)
        image = images(1, (320, 240))[0]
        try:
            return await count(port.getsockname()[1], image)
        finally:
            await runner.cleanup()


def main() -> None:
    """Print the figures as JSON."""
    os.environ |= {
        STORE_VARIABLE: str(MetricStore(processes=1).fd),
        "PROMETHEUS_MULTIPROC_DIR": "/nonexistent",
    }
    name_process("worker-0")
    with asyncio.Runner(loop_factory=make_loop) as loop:
        sys.stdout.write(f"{json.dumps(loop.run(serve()))}\n")


if __name__ == "__main__":
    main()
