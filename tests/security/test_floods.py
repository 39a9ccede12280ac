"""S7: many clients that flood the service with cheap or expensive messages do not delay other clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.raw_websocket import TEXT, RawSocket, frame
from tests.helpers.service import Service

pytestmark = pytest.mark.alone

CLIENTS = 40
#: Limit for the slowest answer to a probe, seconds. Before messages were charged by size, an answer took up
#: to four seconds, and longer with more clients.
SLOW_S = 1.0

CONFIGURE = {"type": "configure", "cfg": 1, "params": {"classes": [0] * 900}}
MESSAGES = {
    "long lists": json.dumps(CONFIGURE),
    "many keys": json.dumps({"type": "ping", **{f"k{n}": n for n in range(600)}}),
    "what is no JSON": "[" * 3000,
    "text frames": json.dumps({"type": "frame", "seq": 1, "data": "A" * 4000}),
    "pings": json.dumps({"type": "ping", "t0": 1}),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    with Service({"MODEL_V1_PATH": str(model), "SAMPLING": "False", "STREAM_MIN_FPS": "0"}) as running:
        yield running


@pytest.mark.parametrize("name", MESSAGES)
def test_a_flood_of_messages_does_not_stop_the_loop(service: Service, name: str) -> None:
    flood = frame(TEXT, MESSAGES[name].encode()) * 300
    hello = frame(TEXT, json.dumps({"type": "hello"}).encode())
    codes: list[int | None] = []

    def attack() -> None:
        with RawSocket(service.port, timeout_s=60) as client:
            client.upgraded()
            client.send(hello)
            client.until(TEXT)
            client.send(flood)
            codes.append(client.close_code())

    threads = [threading.Thread(target=attack) for _ in range(CLIENTS)]
    with ProbeRider(service.port) as rider:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(codes) == CLIENTS
    # The server sends one of these codes, or the connection breaks while the client is still sending.
    assert set(codes) <= {4429, 4400, None}
    rider.ride.check(at_least_s=SLOW_S)
