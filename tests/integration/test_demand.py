"""What clients ask for without getting it is demand: posted images, and streams that are refused."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.helpers.load import End, http_session, post_in_turn
from tests.helpers.load_metrics import PATIENCE_S, fps, until
from tests.helpers.service import PATIENT, Service
from tests.unit.images import encode, scene

#: A busy machine needs minutes to start the service and to send enough images.
pytestmark = pytest.mark.timeout(480)

IMAGE = encode(scene(320, 240))


async def test_images_that_are_posted_are_demand_of_their_own() -> None:
    with Service(PATIENT) as service:
        async with http_session() as session:
            end = End.after(10 * PATIENCE_S)
            posting = asyncio.create_task(
                post_in_turn(session, f"{service.http_url}/v1/predict", [IMAGE], end, pause_s=0.2)
            )
            try:
                await until(lambda: fps(service, "demand", **{"class": "post"}) > 0.5, "images are demand")
                assert fps(service, "demand", **{"class": "live"}) == 0
            finally:
                end.at = 0.0
                tally = await posting
        assert tally.errors == {}
        assert fps(service, "refused") == 0


async def test_refused_streams_are_demand_and_an_impatient_client_is_one_stream(full: bool) -> None:
    least_fps = 1000.0  # more than the bundled model can run on one core
    settings = {"STREAM_MIN_FPS": f"{least_fps:g}", "INFERENCE_LANES": "1"}
    with Service(settings, bundled=True) as service:

        async def knock(address: str, count: int) -> None:
            connector = aiohttp.TCPConnector(local_addr=(address, 0))
            async with aiohttp.ClientSession(connector=connector) as session:
                for _ in range(count):
                    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                        await session.ws_connect(f"{service.http_url}/v1/stream")
                    assert refusal.value.status in (429, 503)

        await knock("127.0.0.5", 60)
        refused = {"class": "live", "version": "v1"}
        await until(lambda: fps(service, "refused", **refused) == least_fps, "sixty attempts are one stream")
        await knock("127.0.0.6", 60)
        await until(lambda: fps(service, "refused", **refused) == 2 * least_fps, "two clients are two")
        assert fps(service, "demand") == 0
        assert fps(service, "refused", version="v2") == 0
        if full:  # it takes a minute; tests/unit/test_load_counters.py does it in simulated time
            await until(lambda: fps(service, "refused") < least_fps / 2, "who stays away is forgotten")
