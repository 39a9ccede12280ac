"""Frames of v1 run on v2 while the device is idle, and none runs while clients need it."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.accounting.shadow_metrics import OUTCOMES
from tests.helpers.load import End, StreamLoad, Tally, http_session, post_in_turn
from tests.helpers.service import PATIENT, ROOT, Service

# The load keeps all cores busy.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(400)]

STILLS = [path.read_bytes() for path in sorted(Path(ROOT, "data/stills").glob("*.jpg"))]
#: Streams and their rate, with which even a large machine is saturated.
STREAMS, FPS = 8, 60.0
PATIENCE_S = 120.0


def counts(service: Service) -> dict[str, int]:
    """Return the outcomes of shadow runs, and `drawn`."""
    found = {
        name: int(service.metric("object_detection_shadow_outcomes_total", outcome=name)) for name in OUTCOMES
    }
    return found | {"drawn": int(service.metric("object_detection_shadow_drawn_total"))}


async def until(service: Service, condition: Callable[[dict[str, int]], bool], what: str) -> dict[str, int]:
    """Wait for a condition of the counts, and return them."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition(found := await asyncio.to_thread(counts, service)):
            await asyncio.sleep(0.2)
    assert condition(found), what
    return found


def balanced(found: dict[str, int]) -> bool:
    return found["drawn"] == sum(found[name] for name in OUTCOMES)


def check_clients(service: Service, *tallies: Tally) -> None:
    """Check that every frame of a client has one outcome, and that shadow runs are none of them."""
    assert all(tally.balanced for tally in tallies)
    sent, received = sum(tally.sent for tally in tallies), "object_detection_frames_received_total"
    assert service.metric(received, version="v1") == sent
    assert service.metric(received, version="v2") == 0
    inferred = service.metric("object_detection_frames_inferred_total", version="v1")
    assert inferred == sum(tally.results for tally in tallies)


def put(service: Service, share: float) -> None:
    """Set the share, as a program on the same machine may."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    try:
        body = json.dumps({"v2": share})
        connection.request("PUT", "/versions/shadow", body, {"Content-Type": "application/json"})
        assert connection.getresponse().status == 200
    finally:
        connection.close()


async def load_slowly(service: Service) -> list[Tally]:
    """Send a few frames per second and an image now and then, until some of each were compared."""
    async with http_session() as session:
        end = End.after(PATIENCE_S)
        loads = [
            asyncio.create_task(StreamLoad(f"{service.ws_url}/v1/stream", STILLS, fps=2.0).run(session, end)),
            asyncio.create_task(
                post_in_turn(session, f"{service.http_url}/v1/predict", STILLS, end, pause_s=0.7)
            ),
        ]
        await until(service, lambda found: found["run"] >= 6, "frames run on an idle device")
        end.at = 0.0
        return list(await asyncio.gather(*loads))


async def overload(service: Service) -> list[Tally]:
    """Send far more than the device can run, and check that nothing else runs meanwhile."""
    async with http_session() as session:
        end = End.after(PATIENCE_S)
        streams = [StreamLoad(f"{service.ws_url}/v1/stream", STILLS, fps=FPS) for _ in range(STREAMS)]
        loads = [asyncio.create_task(stream.run(session, end)) for stream in streams]
        # The demand of the clients is measured once a second. From here on it is known.
        skipped = (await asyncio.to_thread(counts, service))["no_capacity"]
        before = await until(
            service, lambda found: found["no_capacity"] >= skipped + 20, "frames are skipped"
        )
        after = await until(
            service, lambda found: found["no_capacity"] >= before["no_capacity"] + 60, "they still are"
        )
        end.at = 0.0
        drawn = after["drawn"] - before["drawn"]
        assert after["run"] - before["run"] <= drawn / 20
        return list(await asyncio.gather(*loads))


def test_frames_run_on_v2_beside_a_slow_stream_and_not_at_saturation() -> None:
    settings = PATIENT | {"SHADOW_V2": "0.5", "WORKERS": "2", "DRIFT": "0"}
    with Service(settings, bundled=True) as service:
        assert service.get_json("/versions")["shadow"] == {"v2": 0.5}
        put(service, 1.0)
        assert service.get_json("/versions")["shadow"] == {"v2": 1.0}
        assert service.metric("object_detection_shadow_share") == 1
        calm = asyncio.run(load_slowly(service))
        asyncio.run(until(service, balanced, "every drawn frame has one outcome"))
        check_clients(service, *calm)
        found = counts(service)
        assert found["failed"] == found["not_loaded"] == 0
        batches = service.metric("object_detection_batches_total", version="v2", reason="shadow")
        assert batches == found["run"]
        crowd = asyncio.run(overload(service))
        asyncio.run(until(service, balanced, "every drawn frame has one outcome"))
        check_clients(service, *calm, *crowd)
        assert counts(service)["failed"] == 0
